"""What stands before a number says what the number is: the words by which it is judged.

``Preceding`` reads a text from left to right, each character once at most, and knows at every place the nearest word
that announces a kind of number ("NIF", "telemóvel", "pedido") and the nearest word of an address. It reads only the
``WIDTH`` characters before a place that is asked for, and is told of every item that is replaced.
"""

import re

WIDTH = 128
_LABEL_WIDTH = 64
_ADDRESS_WIDTH = 120

LABELS: dict[str, str] = {
    label: name
    for name, labels in {
        "cpf": "cpf cpfs cic",
        "cnpj": "cnpj cnpjs cgc",
        "nif": "nif nipc vat",
        "taxpayer": "contribuinte contribuintes",
        "niss": "niss beneficiário beneficiária",
        "rg": "rg identidade",
        "cep": "cep ceps",
        "postal": "postal",
        "phone": "tel tels tele telef teleg telefone telefones telefonar telefónico telefônico telemóvel telemóveis "
        "telemovel tlm tlmv tlf telm fone fones celular celulares cel whatsapp whats wpp zap zapzap wa phone mobile "
        "fax telefax ligue ligar ligando ligou liga disque ligação contacto contactos contato contatos contacte "
        "contactar contactado contate contatar sms mbway recados ☎ 📞 📱 ☏",
        "card": "cartão cartões visa mastercard amex elo hipercard crédito débito",
        "ip": "ip ips ipv4 ipv6 dns nameserver ping host",
        # Numbers that are nobody's: a sale, a book, a law, a measure, an account.
        "other": "pedido pedidos encomenda encomendas protocolo protocolos processo processos proc autos isbn issn ean "
        "gtin doi código códigos cód cod barras boleto matrícula inscrição nota fatura factura recibo série lote "
        "modelo referência ref refª patente lei decreto portaria resolução artigo art seção secção capítulo item "
        "tabela figura versão version versões v firmware build release kernel driver atualização rastreio "
        "rastreamento objeto chassi chassis renavam placa conta agência ag iban nib oab crm título eleitor pis nis "
        "nit pasep cnh passaporte orçamento contrato edital empenho ticket chamado id sku imei ncm cae cnae "
        "população habitantes eleitores votos euros reais $ € valor total preço soma coordenadas latitude longitude "
        "temporada anos período apólice sinistro guia registo anúncio sorteio bilhete catálogo peça produto",
    }.items()
    for label in labels.split()
}
_SPELLED = {
    ("c", "p", "f"): "cpf",
    ("n", "i", "f"): "nif",
    ("r", "g"): "rg",
    ("segurança", "social"): "niss",
    ("registro", "geral"): "rg",
    ("identificação", "fiscal"): "nif",
    ("número", "fiscal"): "nif",
    ("nº", "fiscal"): "nif",
    ("pessoa", "coletiva"): "nif",
    ("pessoa", "colectiva"): "nif",
    ("mb", "way"): "phone",
}
_LAST_SPELLED = frozenset(words[-1] for words in _SPELLED)
# Words that may stand between a label and its number without weakening it.
_CONNECTORS = frozenset(
    "n nº nr no o º ª núm num número sob é civil de do da mf fiscal ssp sp rj mg pr rs sc ba pe ce df".split()
)
_ADDRESS = frozenset(
    "rua avenida av travessa trav tv alameda praça praceta pça largo estrada estr rodovia rod quadra qd calçada beco "
    "ladeira rotunda urbanização bairro edifício ed apartado apto lote morada endereço residente domiciliado "
    "domiciliada sito sita conjunto condomínio sede".split()
)
MASKED_EMAIL = "nome@exemplo.invalid"
# What an earlier pass put in the place of an item counts as a number, as the item itself does.
_TOKEN = re.compile(rf"{re.escape(MASKED_EMAIL)}|<[^\W\d_][^<>\n]{{1,14}}>|[^\W\d_]+º?|[0-9]+|[.:;☎📞📱☏$€]")
_NEVER = -(1 << 60)


class Preceding:
    """The last announcing words, as positions in the text as it will read.

    A word for numbers that are nobody's ("pedido") holds for the next number only, and gives way to a kind named
    before it in the same clause: in "telefone para pedidos:", the telephone counts.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.read = 0  # characters of the text that are read or passed over
        self.shift = 0  # length of what is replaced so far, new minus old
        self.name, self.name_at, self.tight = "", _NEVER, False
        self.other_at, self.other_holds, self.number_between = _NEVER, False, False
        self.address_at = _NEVER
        self.words = ("", "")

    def label(self, start: int) -> tuple[str, bool]:
        """The nearest announcing word's name before ``start`` ("" where there is none), and whether it adjoins."""
        self.advance(start)
        oldest = start + self.shift - _LABEL_WIDTH
        named = self.name_at >= oldest
        if self.other_at >= oldest and self.other_holds and (self.number_between or not named):
            return "other", False
        return (self.name, self.tight) if named else ("", False)

    def in_address(self, start: int) -> bool:
        """Whether a word of an address stands before ``start``."""
        self.advance(start)
        return self.address_at >= start + self.shift - _ADDRESS_WIDTH

    def replace(self, start: int, end: int, length: int) -> None:
        """Passes over an item that is replaced by ``length`` characters."""
        self.advance(start)
        self._number()
        self.read = end
        self.shift += length - (end - start)

    def advance(self, end: int) -> None:
        """Reads up to ``end``."""
        begin = max(self.read, end - WIDTH)
        if begin > self.read:
            self.words, self.tight = ("", ""), False
        if begin >= end:
            return
        self.read = end
        for match in _TOKEN.finditer(self.text, begin, end):
            token = match[0]
            if token[0] in "<;0123456789" or token == MASKED_EMAIL:
                self._number()
            elif token in ".:":
                if token == "." and self.words[-1] == "r":
                    self.address_at = match.start() + self.shift
            else:
                self._word(token.lower(), match.start() + self.shift)

    def _number(self) -> None:
        self.tight = self.other_holds = False
        self.number_between = True
        self.words = ("", "")

    def _word(self, word: str, at: int) -> None:
        name = LABELS.get(word, "")
        if not name and word in _LAST_SPELLED:
            name = _SPELLED.get((self.words[1], word), "") or _SPELLED.get((*self.words, word), "")
        if name == "other":
            self.other_at, self.other_holds, self.tight = at, True, False
        elif name:
            self.name, self.name_at, self.tight = name, at, True
            self.other_holds = self.number_between = False
        elif word not in _CONNECTORS:
            self.tight = False
        if word in _ADDRESS:
            self.address_at = at
        self.words = (self.words[1], word)


class Surroundings:
    """What stands around one place: before it, as it reads in the result."""

    __slots__ = ("done", "pieces", "preceding", "start", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = self.done = 0
        self.pieces: list[str] = []
        self.preceding = Preceding(text)

    def accept(self, start: int, end: int, replacement: str) -> None:
        """Goes on behind an item."""
        self.preceding.replace(start, end, len(replacement))
        self.pieces += (self.text[self.done : start], replacement)
        self.done = end

    def before(self, width: int) -> str:
        """The ``width`` characters before, items among them already replaced."""
        window = self.text[max(self.done, self.start - width) : self.start]
        for piece in reversed(self.pieces):
            if len(window) >= width:
                break
            window = piece[-(width - len(window)) :] + window
        return window

    @property
    def has_country(self) -> bool:
        """Whether "PT" stands directly before, the only letters that may."""
        return self.text[max(self.done, self.start - 2) : self.start] == "PT"

    @property
    def announced(self) -> tuple[str, bool]:
        return self.preceding.label(self.start)

    @property
    def label(self) -> str:
        return self.preceding.label(self.start)[0]
