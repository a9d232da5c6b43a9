"""Sentences with personal data that is labelled, and with look-alikes; numbers and words drawn by a seed.

Out: ``Case``: a text and the items in it, as (kind, item). The check digits are worked out here, by the rules of those
who issue the numbers, and not by the code that is measured. A sentence is a frame with its words drawn from lists, so
that a number stands in many surroundings; of look-alikes, some have right check digits and stand for something else.
"""

import random
import re
import string
from collections.abc import Callable, Iterator
from typing import NamedTuple

PLACE = re.compile(r"\{(\w+)\}")


class Case(NamedTuple):
    """A text and the items in it; none for a look-alike."""

    text: str
    items: list[tuple[str, str]]
    frame: str


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def weighted(number: str, weights: list[int]) -> int:
    """Sum of digits times weights; letters count as their code minus 48, as the alphanumeric CNPJ has it."""
    return sum((ord(digit) - 48) * weight for digit, weight in zip(number, weights, strict=True))


def cpf(rng: random.Random) -> str:
    body = digits(rng, 9)
    for start in (10, 11):
        rest = weighted(body, list(range(start, 1, -1))) % 11
        body += str(0 if rest < 2 else 11 - rest)
    return body


def cnpj(rng: random.Random, letters: bool = False) -> str:
    alphabet = string.digits + string.ascii_uppercase if letters else string.digits
    body = "".join(rng.choices(alphabet, k=8)) + rng.choice(["0001", "0001", "0002", "0013"])
    for _ in range(2):
        weights = [2 + i % 8 for i in range(len(body))][::-1]
        rest = weighted(body, weights) % 11
        body += str(0 if rest < 2 else 11 - rest)
    return body


def nif(rng: random.Random) -> str:
    body = rng.choice("1235") + digits(rng, 7)
    rest = weighted(body, list(range(9, 1, -1))) % 11
    return body + str(0 if rest < 2 else 11 - rest)


def niss(rng: random.Random) -> str:
    body = rng.choice("12") + digits(rng, 9)
    return body + str(9 - weighted(body, [29, 23, 19, 17, 13, 11, 7, 5, 3, 2]) % 10)


def rg(rng: random.Random) -> str:
    body = str(rng.randrange(1, 6)) + digits(rng, 7)
    check = 11 - weighted(body, list(range(2, 10))) % 11
    return body + {10: "X", 11: "0"}.get(check, str(check))


def card(rng: random.Random) -> str:
    body = rng.choice(["4", "51", "53", "55"])
    body += digits(rng, 15 - len(body))
    doubled = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(body))
    return body + str(-doubled % 10)


def grouped(number: str, form: str) -> str:
    """``grouped("12345", "##.###") == "12.345"``."""
    places = iter(number)
    return "".join(next(places) if sign == "#" else sign for sign in form)


def wrong(rng: random.Random, number: str) -> str:
    """The number with its last digit changed."""
    return number[:-1] + rng.choice([d for d in string.digits if d != number[-1]])


def mobile_pt(rng: random.Random) -> str:
    return rng.choice(["91", "92", "93", "96"]) + digits(rng, 7)


def line_pt(rng: random.Random) -> str:
    return rng.choice(["21", "22", "234", "253", "289", "291"]).ljust(3, rng.choice("01789")) + digits(rng, 6)


def area_br(rng: random.Random) -> str:
    return rng.choice(["11", "21", "31", "41", "48", "51", "61", "71", "81", "85", "91", "92"])


def phone_br(rng: random.Random) -> str:
    area, mobile = area_br(rng), rng.random() < 0.6
    number = ("9" + rng.choice("6789") if mobile else rng.choice("2345")) + digits(rng, 7)
    local = f"{number[:-4]}-{number[-4:]}"
    return rng.choice([f"({area}) {local}", f"({area}){local}", f"+55 {area} {local}", f"+55 ({area}) {local}", f"(0{area}) {local}"])


def phone_pt(rng: random.Random) -> str:
    number = rng.choice([mobile_pt, line_pt])(rng)
    forms = ["### ### ###", "#########", "## ### ## ##", "###-###-###"]
    return rng.choice(["+351 ", "00351 ", "(+351) ", "+351"]) + grouped(number, rng.choice(forms[:3]))


def phone_pt_bare(rng: random.Random) -> str:
    return grouped(rng.choice([mobile_pt, line_pt])(rng), rng.choice(["### ### ###", "#########"]))


def email(rng: random.Random) -> str:
    name = rng.choice(NAMES).lower().replace("ã", "a").replace("é", "e").replace("á", "a").replace("ç", "c").replace("í", "i")
    other = rng.choice(["", ".silva", "_87", "-vendas", ".costa2", "+news"])
    return f"{name}{other}@{rng.choice(DOMAINS)}"


def ip(rng: random.Random) -> str:
    if rng.random() < 0.25:
        groups = [f"{rng.randrange(1, 1 << 16):x}" for _ in range(6)]
        return rng.choice(["2804:", "2001:8a0:"]) + ":".join(groups[:3]) + "::" + groups[3]
    return f"{rng.choice([177, 179, 187, 189, 200, 201, 85, 89, 213])}." + ".".join(str(rng.randrange(1, 255)) for _ in range(3))


NAMES = "Célia Otávio Jurema Plácido Graça Leandro Benedita Nuno Iolanda Tomás Zulmira Vasco Íris Abílio".split()
DOMAINS = "correio.example provedor.com.br.example escola.pt.example loja-do-bairro.example mail.example".split()
STREETS = ("Rua das Laranjeiras", "Av. Afonso Pena", "Rua XV de Novembro", "Travessa do Sol", "Alameda Jaú", "Praça do Mercado")
CITIES_BR = ("São Paulo - SP", "Recife/PE", "Curitiba, PR", "Belo Horizonte - MG", "Manaus/AM", "Florianópolis - SC")
CITIES_PT = ("Lisboa", "Coimbra", "Braga", "Faro", "Setúbal", "Évora", "Viana do Castelo", "Funchal")
RIGHT: dict[str, Callable[[random.Random], str]] = {
    "cpf": lambda rng: grouped(cpf(rng), rng.choice(["###.###.###-##", "###.###.###-##", "###########", "#########-##"])),
    "cnpj": lambda rng: grouped(cnpj(rng, rng.random() < 0.3), rng.choice(["##.###.###/####-##", "##.###.###/####-##", "##############"])),
    "rg": lambda rng: grouped(rg(rng), rng.choice(["##.###.###-#", "##.###.###-#", "########-#"])),
    "nif": lambda rng: grouped(nif(rng), rng.choice(["#########", "### ### ###", "###.###.###"])),
    "niss": lambda rng: grouped(niss(rng), rng.choice(["###########", "### ### ### ##"])),
    "card": lambda rng: grouped(card(rng), rng.choice(["#### #### #### ####", "####-####-####-####", "#### #### #### ####"])),
    "cep": lambda rng: f"{rng.randrange(1001, 99999):05d}-{digits(rng, 3)}",
    "postal_code_pt": lambda rng: f"{rng.randrange(1000, 9980)}-{rng.randrange(1, 999):03d}",
    "phone_br": phone_br,
    "phone_pt": phone_pt,
    "phone_pt_bare": phone_pt_bare,
    "email": email,
    "ip": ip,
}
PERSONAL = (
    *("{name}, CPF {cpf}, mora aqui.", "CPF: {cpf}", "inscrito no CPF sob o nº {cpf}", "Meu CPF é {cpf}, pode anotar."),
    *("CPF/MF nº {cpf} e RG nº {rg} SSP/SP", "{name} (CPF {cpf})", "portador do CPF {cpf} e do RG {rg}"),
    *("CNPJ {cnpj}", "A {name} Comércio Ltda., CNPJ: {cnpj}, faliu."),
    *("inscrita no CNPJ sob o nº {cnpj}", "CNPJ nº {cnpj}."),
    *("RG {rg}", "RG nº {rg} SSP/SP", "R.G.: {rg}", "carteira de identidade nº {rg} SSP-SP"),
    *("NIF {nif}", "NIF: {nif}", "contribuinte n.º {nif}"),
    *("{name}, contribuinte fiscal n.º {nif}, solteira", "NIPC {nif}"),
    *("número de identificação fiscal {nif}", "com o NIF {nif} e o NISS {niss}"),
    *("NISS {niss}", "NISS: {niss}", "beneficiária da Segurança Social n.º {niss}", "o NISS de {name} é {niss}."),
    *("cartão {card}", "Cartão de crédito: {card}, validade 09/29", "O Visa {card} de {name} foi recusado."),
    *("{street}, {n}, {city_br}, CEP {cep}", "CEP: {cep}", "{street}, {n} - {city_br} - {cep}", "O CEP é {cep}."),
    *("{street}, n.º {n}, {postal_code_pt} {city_pt}"),
    *("{street}, {n}\n{postal_code_pt} {city_pt}", "Código postal: {postal_code_pt}"),
    *("Tel.: {phone_br}", "{phone_br}", "Ligue para {phone_br} e fale com {name}."),
    *("WhatsApp: {phone_br}", "contato {phone_br}"),
    *("{phone_pt}", "Telefone {phone_pt}", "Tlm. {phone_pt_bare}"),
    *("Telemóvel: {phone_pt_bare}", "Contacte {name} pelo {phone_pt}."),
    *("telefone: {phone_pt_bare} ou {phone_pt_bare}"),
    *("Ligue {phone_pt_bare}.", "Tel. {phone_pt_bare} / Fax {phone_pt_bare}"),
    *("{email}", "Escreva para {email}.", "E-mail: {email}"),
    *("{name} <{email}>", "({email})", "contacto: {email}; {email}"),
    *("IP {ip}", "o endereço {ip} foi bloqueado", "acesso de {ip} às 10h", "IP: {ip}, usuário {name}"),
)
OTHER: dict[str, Callable[[random.Random], str]] = {
    "wrong_cpf": lambda rng: grouped(wrong(rng, cpf(rng)), "###.###.###-##"),
    "wrong_cnpj": lambda rng: grouped(wrong(rng, cnpj(rng)), "##.###.###/####-##"),
    "wrong_card": lambda rng: grouped(wrong(rng, card(rng)), "#### #### #### ####"),
    "wrong_nif": lambda rng: wrong(rng, nif(rng)),
    "nine": lambda rng: digits(rng, 9),
    "nif": nif,
    "niss": niss,
    "cpf_digits": cpf,
    "millions": lambda rng: f"{rng.randrange(1, 999)}.{digits(rng, 3)}.{digits(rng, 3)}",
    "process": lambda rng: f"{digits(rng, 7)}-{digits(rng, 2)}.20{digits(rng, 2)}.8.26.{digits(rng, 4)}",
    "isbn": lambda rng: f"978-{rng.choice(['85', '972', '65'])}-{digits(rng, 3)}-{digits(rng, 4)}-{digits(rng, 1)}",
    "isbn13": lambda rng: "978" + digits(rng, 10),
    "years": lambda rng: f"{(y := rng.randrange(1500, 2020))}-{y + rng.randrange(1, 9)}",
    "code43": lambda rng: f"{digits(rng, 4)}-{digits(rng, 3)}",
    "code53": lambda rng: f"{digits(rng, 5)}-{digits(rng, 3)}",
    "code44": lambda rng: f"{digits(rng, 4)}-{digits(rng, 4)}",
    "version": lambda rng: ".".join(str(rng.randrange(0, 99)) for _ in range(4)),
    "private": lambda rng: rng.choice(["192.168.", "10.4."]) + f"{rng.randrange(256)}.{rng.randrange(256)}",
    "date": lambda rng: f"{rng.randrange(1, 29):02d}.{rng.randrange(1, 13):02d}.{rng.randrange(1800, 2025)}",
    "stamp": lambda rng: f"20{digits(rng, 2)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{rng.randrange(24):02d}{digits(rng, 4)}",
    "law": lambda rng: f"{rng.randrange(1, 15)}.{digits(rng, 3)}",
    "iban": lambda rng: grouped(digits(rng, 23), "PT## #### #### #### #### #### #"),
    "slip": lambda rng: grouped(digits(rng, 47), "#####.##### #####.###### #####.###### # ##############"),
    "n": lambda rng: str(rng.randrange(1, 999)),
    "name": lambda rng: rng.choice(NAMES),
    "street": lambda rng: rng.choice(STREETS),
    "city_br": lambda rng: rng.choice(CITIES_BR),
    "city_pt": lambda rng: rng.choice(CITIES_PT),
}
LOOK_ALIKES = (
    *("O pedido {nine} saiu.", "Encomenda n.º {nif}", "referência {nif}"),
    *("Protocolo {cpf_digits}", "Pedido nº {cpf_digits}."),
    *("O código de rastreio é {nine}.", "Ticket {code44}"),
    *("Matrícula {nine}", "Fatura n.º {nine}", "Nota fiscal {millions}"),
    *("Processo nº {process}", "Processo {process}, da 2ª Vara"),
    *("Lei nº {law}, de {date}", "Decreto {law}/1999, art. {n}"),
    *("ISBN {isbn}", "ISBN: {isbn13}", "EAN {isbn13}"),
    *("De {years} a {years}, nada mudou.", "O mandato de {years} acabou."),
    *("São {millions} habitantes.", "Custou R$ {millions},00.", "{millions} euros", "um prémio de {millions} de euros"),
    *("CPF {wrong_cpf}", "O documento {wrong_cpf} é falso."),
    *("CNPJ {wrong_cnpj}", "Cartão {wrong_card}", "NIF {wrong_nif}"),
    *("Ref. {code43} Azul", "Modelo {code53} esgotado"),
    *("Peça {code44} disponível", "Catálogo {code53}", "Artigo {code43}"),
    *("Versão {version}", "versão {version} do programa", "Atualização {version}", "O IP {private} é da rede local."),
    *("Nascido em {date}", "gravado em {stamp}", "Ficheiro {stamp}.jpg"),
    *("IBAN {iban}", "Boleto {slip}", "Linha digitável {slip}"),
    *("SAC 0800 {code43}", "Ligue 0800 {n} {code44}", "Linha 808 {n} {n}"),
    *("Siga @{name}", "git@servidor.example:{name}/x.git"),
    *("Entidade 20{n}, referência {nif}", "Temporada {years}"),
    *("Contrato {code44}, lote {code43}", "Apólice {wrong_card}"),
    *("a {street}, n.º {n}, no bairro velho", "{street}, {n}, {city_br}"),
    *("o total de {nine} votos", "{nine} toneladas"),
)  # fmt: skip
BEFORE = ("", "", "", "Segundo a nota, ", "— ", "Atenção: ", "* ", "Ontem, às 10h, vimos isto: ", "“")
AFTER = ("", "", "", ".", " (ver anexo)", ", disse {name}.", "; e assim ficou", "\nFim.", "”")


def cases(seed: int, count: int) -> Iterator[Case]:
    """``count`` sentences with items and as many look-alikes, in turn."""
    rng = random.Random(seed)
    for index in range(count):
        for frames, items in ((PERSONAL, True), (LOOK_ALIKES, False)):
            yield filled(rng, frames[index % len(frames)], items)


def filled(rng: random.Random, frame: str, with_items: bool) -> Case:
    """A frame with its places filled in, and words around it."""
    found: list[tuple[str, str]] = []

    def value(match: re.Match[str]) -> str:
        kind = match[1]
        if with_items and kind in RIGHT:
            found.append((kind.removesuffix("_bare"), RIGHT[kind](rng)))
            return found[-1][1]
        return OTHER[kind](rng)

    before, after = rng.choice(BEFORE), rng.choice(AFTER)
    if frame[-1] in ".”" or after.startswith("."):
        after = after.lstrip(".")
    text = PLACE.sub(value, before + frame + after)
    return Case(text, found, frame)
