"""How good labelled predictions are, where they fail, and whether the test was a fair one."""
