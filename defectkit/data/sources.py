"""Registry of the data sets that the kit knows: where they are, what they are, how to cite them."""

from dataclasses import dataclass

from defectkit import DefectkitError


@dataclass(frozen=True)
class DataSource:
    """A data set.

    Attributes:
        name: the word for `defectkit.data.load`.
        title: what it is, in a line.
        label_source: what computed the labels.
        file: name of the file or folder that holds it.
        url: where it is downloaded from; empty where it is not.
        n_bytes: size of the download.
        sha256: checksum of the download.
        licence: terms of use.
        citation: what to cite.
        page: where people read about it; empty for the bundled one.
    """

    name: str
    title: str
    label_source: str
    file: str
    url: str
    n_bytes: int
    sha256: str
    licence: str
    citation: str
    page: str


SOURCES: dict[str, DataSource] = {
    source.name: source
    for source in [
        DataSource(
            name="demo",
            title="defects in 2D hosts, labelled by the CHGNet potential (not DFT)",
            label_source="CHGNet-0.3.0",
            file="demo2d.db",
            url="",
            n_bytes=0,
            sha256="",
            licence="MIT, as the kit",
            citation="B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023), for the potential",
            page="",
        ),
        DataSource(
            name="imp2d",
            title="Imp2d: 17,364 adsorbates and interstitials in 44 2D hosts, PBE",
            label_source="DFT-PBE (Imp2d)",
            file="imp2d.db",
            url="https://wiki.fysik.dtu.dk/cmr-files/imp2d.db",
            n_bytes=71_819_264,
            sha256="3a71db999b477112da248dcf762c4384e455689953679d58b3d71a91e7148fc4",
            licence="see the page; not passed on with the kit",
            citation="J. Davidsson et al., npj 2D Mater. Appl. 7, 26 (2023)",
            page="https://cmr.fysik.dtu.dk/imp2d/imp2d.html",
        ),
        DataSource(
            name="2dmd",
            title="2DMD: vacancies and substitutions in large supercells of six 2D hosts, PBE",
            label_source="DFT-PBE (2DMD)",
            file="2dmd",
            url="",
            n_bytes=0,
            sha256="",
            licence="CC BY 4.0",
            citation="P. Huang et al., npj 2D Mater. Appl. 7, 6 (2023)",
            page="https://doi.org/10.1038/s41699-023-00369-1",
        ),
    ]
}


def find_source(name: str) -> DataSource:
    """The source of that name; DefectkitError with all names where there is none."""
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise DefectkitError(
            f"There is no data set '{name}'; use {known}, or the path of a folder with structure "
            "files and a CSV file of targets."
        )
    return SOURCES[name]
