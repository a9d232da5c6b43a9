"""Sentences of made-up news, guides and shop pages in Portuguese: templates whose places are filled by chance."""

import random

TEMPLATES = (
    "{Quem} {anunciou} {quando} que {oque} {onde} vai {custar} {numero} {unidade}, segundo {fonte}.",
    "{Quando}, {quem} {anunciou} {adjetivo} {coisa} para {publico} {onde}.",
    "A {coisa_f} {adjetivo_f} {onde} {foi} {feita} por {quem}, com {numero} {unidade} de {materia}.",
    "De acordo com {fonte}, {numero} em cada {numero} {publico} já {usaram} {coisa} pelo menos uma vez {quando}.",
    "Não é a primeira vez que {quem} {reclama} de {materia} {onde}, e {fonte} {anunciou} isso {quando}.",
    "Para {fazer} {coisa}, separe {numero} {unidade} de {materia} e espere {numero} minutos antes de {fazer} {coisa}.",
    "{Quem} nasceu {onde} em {ano} e, {quando}, {anunciou} {coisa} sobre {materia}.",
    "O preço de {materia} subiu {numero},{digito} por cento {quando} e já preocupa {publico} {onde}.",
    "Se {publico} {onde} precisarem de {materia}, {quem} {anunciou} que {coisa} {adjetivo} estará pronta em {ano}.",
    "Embora {fonte} tenha dito o contrário, {coisa} {adjetivo} continua à venda {onde} por R$ {numero},{digito}0.",
    "{Quem} e {quem} {usaram} {materia} {adjetivo_f} {quando}, mas {publico} {onde} preferem {coisa}.",
    "Como {fazer} {coisa} sem gastar mais de {numero} reais com {materia}, pergunta {quem} {onde}.",
    "O artigo {numero} da lei de {ano} diz que {publico} têm direito a {coisa} {onde}, salvo se {quem} o negar.",
    "Entre {ano} e {ano}, a produção de {materia} {onde} passou de {numero} para {numero} {unidade} por mês.",
    "“Ninguém esperava {coisa} {adjetivo}”, disse {quem}, que mora {onde} há {numero} anos com {publico}.",
    "Na reunião de {dia}, {fonte} votou {coisa} e deixou {materia} para {quando}.",
)
WORDS: dict[str, tuple[str, ...]] = {
    "quem": ("a prefeita", "o secretário", "a associação de moradores", "o padeiro", "a professora Lúcia",
             "João Aragão", "a doutora Inês", "o clube da vila", "a empresa Ribeirão", "o poeta Anselmo",
             "a costureira", "o delegado", "a diretora da escola", "o pescador Zeca", "a cooperativa", "o síndico",
             "a engenheira Marta", "o ministro"),
    "anunciou": ("anunciou", "confirmou", "negou", "explicou", "repetiu", "garantiu", "lembrou", "publicou",
                 "escreveu"),
    "quando": ("ontem", "na semana passada", "no verão", "depois do almoço", "durante a festa", "no fim do mês",
               "hoje", "há dois anos", "na véspera do feriado", "na próxima primavera", "de madrugada",
               "no segundo semestre"),
    "oque": ("a ponte", "o mercado", "a nova escola", "o parque", "a biblioteca", "o museu do sal", "a ciclovia",
             "o porto", "a rodoviária", "o hospital", "a feira de livros", "o centro de saúde", "a creche",
             "o teatro"),
    "onde": ("em Coimbra", "no Recife", "na serra", "perto do rio", "em Santarém", "no bairro alto", "na ilha",
             "em Évora", "no interior de Minas", "em Braga", "na costa do Ceará", "em Manaus", "no Alentejo",
             "em Porto Velho", "na praça velha", "em Luanda", "no sertão", "em Viseu", "na capital", "na zona norte"),
    "custar": ("custar", "receber", "gastar", "perder", "economizar", "render"),
    "unidade": ("reais", "euros", "quilos", "litros", "metros", "toneladas", "caixas", "pacotes", "sacas", "páginas"),
    "fonte": ("o jornal da manhã", "um estudo da universidade", "a câmara municipal", "o relatório anual",
              "o instituto", "a rádio local", "uma pesquisa recente", "o boletim da paróquia", "o sindicato",
              "a agência de notícias"),
    "adjetivo": ("antigo", "barato", "inesperado", "discreto", "enorme", "simples", "necessário", "tradicional",
                 "raro"),
    "adjetivo_f": ("antiga", "barata", "inesperada", "discreta", "enorme", "simples", "necessária", "tradicional",
                   "rara"),
    "coisa": ("um mapa de papel", "um forno de barro", "o cadastro", "um seguro", "o calendário",
              "um curso de violão", "uma horta", "um barco a vela", "o passaporte", "um bolo de fubá",
              "uma rede de pesca", "o imposto", "uma bicicleta", "um telhado", "o dicionário",
              "uma campanha de vacinação", "um aplicativo", "a colheita"),
    "coisa_f": ("colcha", "canoa", "fachada", "estrada", "receita", "oficina", "coleção", "orquestra", "exposição"),
    "foi": ("foi", "será", "tinha sido", "está sendo", "não foi"),
    "feita": ("feita", "vendida", "restaurada", "fotografada", "entregue", "esquecida", "pintada", "discutida"),
    "publico": ("os moradores", "as crianças", "os estudantes", "os turistas", "as enfermeiras", "os agricultores",
                "os leitores", "as famílias", "os motoristas", "os aposentados", "os vizinhos", "as cozinheiras"),
    "materia": ("farinha", "azeite", "cimento", "lã", "café", "água", "energia", "madeira", "chuva", "poesia", "sal",
                "transporte", "milho", "vidro", "peixe", "música", "segurança", "queijo", "algodão", "internet"),
    "usaram": ("usaram", "compraram", "viram", "emprestaram", "procuraram", "evitaram"),
    "reclama": ("reclama", "fala", "precisa", "cuida", "gosta", "depende"),
    "fazer": ("preparar", "consertar", "encontrar", "renovar", "guardar", "comparar", "vender", "desenhar"),
    "dia": ("segunda-feira", "terça-feira", "quarta-feira", "quinta-feira", "sexta-feira", "sábado", "domingo"),
}  # fmt: skip
SYLLABLES = tuple(
    onset + rest
    for onset in "b c d f gu j l m n p r s t v z br tr lh".split()
    for rest in "a e i o u é ão ar es im".split()
)
NAMED = 0.3
"""How often a place gets a made-up name beside its word, so that texts have words of their own."""
PIECES = tuple([tuple(part.partition("}")[::2]) for part in ("}" + template).split("{")] for template in TEMPLATES)
"""Of each template: place and what follows it; the first place is empty."""


def sentence(chance: random.Random) -> str:
    """One sentence."""
    found = []
    for place, after in PIECES[int(chance.random() * len(PIECES))]:
        found += [_filled(place, chance), after] if place else [after]
    return "".join(found)


def _filled(place: str, chance: random.Random) -> str:
    if place == "numero":
        return str(int(2 + 10 ** (chance.random() * 4)))
    if place == "ano":
        return str(1950 + int(chance.random() * 76))
    if place == "digito":
        return str(int(chance.random() * 10))
    words = WORDS[place.lower()]
    found = words[int(chance.random() ** 1.5 * len(words))]
    drawn = chance.random()
    if drawn < NAMED:
        count, name = len(SYLLABLES), ""
        rest = int(drawn / NAMED * count**3)
        for _ in range(3):
            rest, syllable = divmod(rest, count)
            name += SYLLABLES[syllable]
        found += " " + name.capitalize()
    return found[:1].upper() + found[1:] if place[0].isupper() else found
