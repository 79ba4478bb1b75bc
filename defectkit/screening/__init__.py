"""What the kit says of thousands of defects that nobody has computed.

`candidates` are all that can be made in some hosts, `building` makes their graphs, `funnel`
predicts and sieves them, `store` keeps it all on disk while others compute; `handover` writes the
short list for those who run DFT, `choose` says what to compute next and `label` computes it with
CHGNet.
"""

from defectkit.screening.candidates import Space
from defectkit.screening.funnel import Wish
from defectkit.screening.store import Engine, Screening, screen

__all__ = ["Engine", "Screening", "Space", "Wish", "screen"]
