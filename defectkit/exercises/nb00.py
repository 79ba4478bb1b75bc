"""Exercises of notebook 00, start here."""

from defectkit.teach import exercise, same_number, same_text


@exercise("00-1")
def number_of_rows(data, answer):
    """Rows in the data set."""
    return same_number(answer, len(data), "len(frame) counts the rows of a table.", rel=0)


@exercise("00-2")
def formation_energy(data, answer):
    """Formation energy of one row from its four terms."""
    if not (isinstance(answer, tuple) and len(answer) == 2):
        return "answer with a pair in round brackets: (row.name, energy)."
    uid, energy = answer
    if uid not in data.frame.index:
        return f"{uid!r} is no row of this data set; row.name is the id of the row in use."
    hint = "Mind the signs: what is added costs its reservoir mu, what is removed gives mu back."
    return same_number(energy, data.frame.eform[uid], hint)


@exercise("00-3")
def label_source(data, answer):
    """What computed the labels."""
    return same_text(answer, data.label_source, "The data set knows: data.label_source.")


@exercise("00-4")
def interstitials(data, answer):
    """Rows whose impurity ends inside the layer."""
    expected = (data.frame.defecttype == "interstitial").sum()
    return same_number(answer, expected, 'Compare a column with "interstitial", then sum.', rel=0)
