"""CEP and Portuguese postcode: eight and seven digits, which mean nothing outside an address.

In: the match of eight digits or of 9999-999, and what stands around it. Out: whether an address does.
"""

import re

from filters.personal_data_labels import Surroundings

_STATES = "AC|AL|AM|AP|BA|CE|DF|ES|GO|MA|MG|MS|MT|PA|PB|PE|PI|PR|RJ|RN|RO|RR|RS|SC|SE|SP|TO"
_STATE_BEFORE = re.compile(rf"(?:[\-–—/,(] ?|\s)(?:{_STATES})\)?[\s,.;:\-–—|]{{0,4}}\Z")
_STATE_AFTER = re.compile(rf"[\s,.\-–—]{{1,3}}[A-ZÀ-Ý][^\W\d_]+(?:[ '\-][^\W\d_]+){{0,5}} ?[\-–—/,(] ?(?:{_STATES})\b")
_PLACE_AFTER = re.compile(r"[ \t]{1,2}(?:-\s)?[A-ZÀ-Ý][^\W\d_]")
_TOWN_AFTER = re.compile(
    r"[ \t]{1,2}(?:LISBOA|PORTO|COIMBRA|BRAGA|AVEIRO|FARO|ÉVORA|SETÚBAL|LEIRIA|VISEU|Lisboa|Porto|Coimbra|Braga|Aveiro|"
    r"Faro|Évora|Setúbal|Leiria|Viseu|Santarém|Beja|Bragança|Guarda|Portalegre|Viana do Castelo|Vila Real|"
    r"Castelo Branco|Funchal|Ponta Delgada|Almada|Amadora|Oeiras|Cascais|Sintra|Loures|Odivelas|Matosinhos|Maia|"
    r"Gondomar|Guimarães|Vila Nova de Gaia|Barreiro|Seixal|Portimão|Figueira da Foz|Torres Vedras|Algés|Queluz)\b"
)


def is_cep(match: re.Match[str], around: Surroundings) -> bool:
    """CEP: announced as one, or within an address or beside a town and its state."""
    digits = match[0].replace(".", "").replace("-", "")
    if digits < "01000000":
        return False
    if around.label == "cep":
        return True
    if "-" not in match[0] or around.label == "other":
        return False
    return (
        around.preceding.in_address(around.start)
        or bool(_STATE_BEFORE.search(around.before(10)))
        or bool(_STATE_AFTER.match(around.text, match.end()))
    )


def is_postal_code_pt(match: re.Match[str], around: Surroundings) -> bool:
    """Portuguese postcode: announced as one, or before a place and within an address, or before a large town."""
    if around.announced == ("postal", True):
        return True
    if around.label == "other" or not _PLACE_AFTER.match(around.text, match.end()):
        return False
    return around.preceding.in_address(around.start) or bool(_TOWN_AFTER.match(around.text, match.end()))
