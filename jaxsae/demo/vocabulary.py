"""Akkadian words of the generated corpus, as data.

Stems are written up to the last consonant, so that an ending completes its sign: `šar-r` + `u-um`.
"""

from typing import NamedTuple


class Noun(NamedTuple):
    """An Akkadian noun: stem before case endings, form before a genitive or suffix, word sign (or none)."""

    stem: str
    bound: str
    logogram: str = ""
    feminine: bool = False


class Verb(NamedTuple):
    """An Akkadian verb: class of its prefix vowels, then per tense the form without ending and the stem before one."""

    vowels: str
    pret: str = ""
    dur: str = ""
    perf: str = ""
    imp: str = ""


NOUNS = {
    # people
    "king": Noun("šar-r", "šar", "LUGAL"),
    "man": Noun("a-wi-l", "a-wi-il", "LÚ"),
    "lord": Noun("be-l", "be-el", "EN"),
    "lady": Noun("be-el-t", "be-le-et", "NIN", True),
    "slave": Noun("wa-ar-d", "wa-ra-ad", "ÌR"),
    "maid": Noun("am-t", "a-ma-at", "GEME", True),
    "son": Noun("ma-r", "ma-ar", "DUMU"),
    "daughter": Noun("ma-ar-t", "ma-ra-at", "DUMU.MUNUS", True),
    "wife": Noun("aš-ša-t", "aš-ša-at", "DAM", True),
    "brother": Noun("a-ḫ", "a-ḫi", "ŠEŠ"),
    "father": Noun("a-b", "a-bi", "AD"),
    "merchant": Noun("tam-ka-r", "tam-ka-ar", "DAM.GÀR"),
    "judge": Noun("da-a-a-n", "da-a-a-an", "DI.KUD"),
    "witness": Noun("ši-b", "ši-ib", "IGI"),
    "governor": Noun("ša-pi-r", "ša-pi-ir", "GÌR.NÍTA"),
    "mayor": Noun("ḫa-za-an-n", "ḫa-za-an"),
    "weaver": Noun("iš-pa-r", "iš-pa-ar", "UŠ.BAR"),
    "smith": Noun("na-ap-pa-ḫ", "na-ap-pa-aḫ", "SIMUG"),
    "boatman": Noun("ma-la-ḫ", "ma-la-aḫ", "MÁ.LAḪ"),
    "shepherd": Noun("re-i-", "re-i", "SIPA"),
    "scribe": Noun("ṭup-šar-r", "ṭup-šar", "DUB.SAR"),
    "prince": Noun("ru-b", "ru-bé"),
    "enemy": Noun("na-ak-r", "na-ka-ar", "LÚ.KÚR"),
    "army": Noun("um-ma-n", "um-ma-an", "ERIM", True),
    "troops": Noun("ṣa-b", "ṣa-ab", "ERIM.ḪI.A"),
    "god": Noun("i-l", "i-il", "DINGIR"),
    "hireling": Noun("ag-r", "a-gi-ir", "LÚ.ḪUN.GÁ"),
    # places
    "house": Noun("bi-t", "bi-it", "É"),
    "field": Noun("eq-l", "e-qé-el", "A.ŠÀ"),
    "city": Noun("a-l", "a-al", "URU"),
    "palace": Noun("e-kal-l", "e-kal", "É.GAL"),
    "gate": Noun("ba-b", "ba-ab", "KÁ"),
    "land": Noun("ma-t", "ma-at", "KUR", True),
    "river": Noun("na-r", "na-ar", "ÍD", True),
    "wall": Noun("du-r", "du-ur", "BÀD"),
    "road": Noun("ḫa-ar-ra-n", "ḫa-ar-ra-an", "KASKAL", True),
    "orchard": Noun("ki-r", "ki-ri", "KIRI"),
    "quay": Noun("ka-r", "ka-ar", "KAR"),
    # goods
    "silver": Noun("ka-as-p", "ka-sa-ap", "KÙ.BABBAR"),
    "gold": Noun("ḫu-ra-ṣ", "ḫu-ra-aṣ", "KÙ.GI"),
    "barley": Noun("še-", "še-e", "ŠE"),
    "oil": Noun("ša-am-n", "ša-ma-an", "Ì.GIŠ"),
    "wool": Noun("ši-pa-t", "ši-pa-at", "SÍG", True),
    "tablet": Noun("ṭup-p", "ṭup-pa", "DUB"),
    "sheep": Noun("im-me-r", "im-me-er", "UDU"),
    "ox": Noun("al-p", "a-la-ap", "GUD"),
    "donkey": Noun("i-me-r", "i-me-er", "ANŠE"),
    "beer": Noun("ši-ka-r", "ši-ka-ar", "KAŠ"),
    "dates": Noun("su-lu-up-p", "su-lu-up", "ZÚ.LUM"),
    "garment": Noun("ṣú-ba-t", "ṣú-ba-at", "TÚG"),
    "boat": Noun("e-le-ep-p", "e-le-ep", "MÁ", True),
    "copper": Noun("e-r", "e-ri", "URUDU"),
    "flour": Noun("qé-m", "qé-em", "ZÍD"),
    "rent": Noun("bi-il-t", "bi-la-at", "GÚ.UN", True),
    "interest": Noun("ṣi-ib-t", "ṣi-ba-at", "MÁŠ", True),
    "seed": Noun("ze-r", "ze-er", "NUMUN"),
    # things said and thought
    "word": Noun("a-wa-t", "a-wa-at", "INIM", True),
    "report": Noun("ṭe-m", "ṭe-em"),
    "heart": Noun("li-ib-b", "li-ib-bi", "ŠÀ"),
    "name": Noun("šu-m", "šu-um", "MU"),
    "life": Noun("ba-la-ṭ", "ba-la-aṭ", "TI.LA"),
    "case": Noun("di-n", "di-in"),
    "rival": Noun("ma-ḫi-r", "ma-ḫi-ir"),
    "profit": Noun("né-me-l", "né-me-el"),
    "booty": Noun("ša-al-la-t", "ša-al-la-at", "", True),
    "famine": Noun("ḫu-ša-ḫ", "ḫu-ša-aḫ"),
    "revolt": Noun("ba-ar-t", "ba-ra-at", "", True),
    "rain": Noun("zu-un-n", "zu-un-ni", "ŠÈG"),
    "harvest": Noun("e-bu-r", "e-bu-ur", "BURU"),
    "prayer": Noun("te-es-li-t", "te-es-li-it", "", True),
    "throne": Noun("ku-us-s", "ku-us-si", "GU.ZA"),
    # the liver and what is seen on it
    "gall": Noun("ma-ar-t", "ma-ra-at", "ZÉ", True),
    "finger": Noun("ú-ba-n", "ú-ba-an", "ŠU.SI", True),
    "path": Noun("pa-da-n", "pa-da-an", "GÍR"),
    "station": Noun("ma-an-za-z", "ma-an-za-az", "KI.GUB"),
    "strength": Noun("da-na-n", "da-na-an", "KAL"),
    "wellbeing": Noun("šu-ul-m", "šu-lu-um", "SILIM"),
    "increment": Noun("ṣi-ib-t", "ṣi-ba-at", "MÁŠ", True),
    "liver": Noun("a-mu-t", "a-mu-ut", "BÀ", True),
    "lung": Noun("ḫa-š", "ḫa-ši", "MUR"),
    "right": Noun("i-mi-t", "i-mi-it", "ZAG", True),
    "left": Noun("šu-me-l", "šu-me-el", "GÙB"),
    "hole": Noun("ši-l", "ši-il", "BÙR"),
    "weapon": Noun("ka-ak-k", "ka-ak-ki", "TUKUL"),
    "foot": Noun("še-p", "še-ep", "GÌR", True),
    "cross": Noun("pi-iṭ-r", "pi-ṭe-er", "DU"),
}

ADJECTIVES = {  # masculine stem, feminine stem, word sign
    "great": ("ra-b", "ra-bi-t", "GAL"),
    "strong": ("da-an-n", "da-an-na-t", "KALA.GA"),
    "good": ("da-am-q", "da-mi-iq-t", "SIG"),
    "exalted": ("ṣi-r", "ṣi-ir-t", "MAḪ"),
    "pure": ("el-l", "el-le-t", "KÙ"),
    "new": ("eš-š", "e-de-eš-t", "GIBIL"),
    "old": ("la-bi-r", "la-bi-ir-t", ""),
    "just": ("ki-n", "ki-it-t", ""),
    "wide": ("ra-ap-š", "ra-pa-aš-t", "DAGAL"),
    "small": ("ṣe-eḫ-r", "ṣe-ḫe-er-t", "TUR"),
    "valiant": ("qar-d", "qa-ri-it-t", ""),
    "sweet": ("ṭa-b", "ṭa-ab-t", "DÙG"),
    "honoured": ("ka-ab-t", "ka-bi-it-t", ""),
    "this": ("an-ni-", "an-ni-t", ""),
}

VERBS = {
    "send": Verb(
        "a", pret="š-pu-ur š-pu-r", dur="ša-ap-pa-ar ša-ap-pa-r", perf="š-ta-pa-ar š-tap-r", imp="šu-pu-ur šu-up-r"
    ),
    "give": Verb(
        "a", pret="d-di-in d-di-n", dur="na-ad-di-in na-ad-di-n", perf="t-ta-di-in t-ta-ad-n", imp="i-di-in id-n"
    ),
    "take": Verb("e", pret="l-qé l-q", dur="le-eq-qé le-eq-q", perf="l-te-qé l-te-q", imp="le-qé le-q"),
    "go": Verb("a", pret="l-li-ik l-li-k", dur="l-la-ak l-la-k", perf="t-ta-la-ak t-ta-al-k", imp="a-li-ik al-k"),
    "receive": Verb(
        "a", pret="m-ḫu-ur m-ḫu-r", dur="ma-aḫ-ḫa-ar ma-aḫ-ḫa-r", perf="m-ta-ḫa-ar m-ta-aḫ-r", imp="mu-ḫu-ur mu-uḫ-r"
    ),
    "hear": Verb("e", pret="š-me š-m", dur="še-em-me še-em-m", imp="ši-me ši-m"),
    "see": Verb("a", pret="mu-ur mu-r", dur="m-ma-ar m-ma-r", imp="a-mu-ur am-r"),
    "seize": Verb(
        "a", pret="ṣ-ba-at ṣ-ba-t", dur="ṣa-ab-ba-at ṣa-ab-ba-t", perf="ṣ-ṣa-ba-at ṣ-ṣa-ab-t", imp="ṣa-ba-at ṣa-ab-t"
    ),
    "decide": Verb("a", pret="p-ru-us p-ru-s", imp="pu-ru-us pu-ur-s"),
    "delay": Verb("u", dur="la-ap-pa-at la-ap-pa-t"),
    "neglect": Verb("e", dur="eg-gi eg-g"),
    "load": Verb("e", pret="ṣe-en ṣe-n", imp="ṣe-en ṣe-n"),
    "bring": Verb("u", pret="ša-bi-il ša-bi-l", perf="š-ta-bi-il š-ta-bi-l", imp="šu-bi-il šu-bi-l"),
    "dispatch": Verb("a", pret="ṭ-ru-ud ṭ-ru-d", perf="ṭ-ṭa-ra-ad ṭ-ṭa-ar-d", imp="ṭu-ru-ud ṭu-ur-d"),
    "inform": Verb("u", pret="la-am-mi-id la-am-mi-d"),
    "return": Verb("u", pret="te-er te-er-r", dur="ta-ar ta-ar-r", imp="te-er te-er-r"),
    "heal": Verb("u", pret="ba-al-li-iṭ ba-al-li-ṭ"),
    "guard": Verb("a", pret="ṣ-ṣú-ur ṣ-ṣú-r"),
    "weigh": Verb("a", dur="ša-aq-qa-al ša-aq-qa-l", pret="š-qú-ul š-qú-l"),
    "measure": Verb("a", dur="ma-ad-da-ad ma-ad-da-d", pret="m-du-ud m-du-d"),
    "buy": Verb("a", pret="ša-am ša-m"),
    "hire": Verb("a", pret="gu-ur gu-r"),
    "write": Verb("a", pret="š-ṭu-ur š-ṭu-r"),
    "build": Verb("a", pret="b-ni b-n", dur="ba-an-ni ba-an-n"),
    "make": Verb("e", pret="pu-uš pu-š", dur="p-pe-eš p-pe-š"),
    "give_as_gift": Verb("a", pret="š-ru-uk š-ru-k", imp="šu-ru-uk šu-ur-k"),
    "dig": Verb("e", pret="ḫ-re ḫ-r"),
    "call": Verb("a", pret="b-bi b-b"),
    "erase": Verb("a", dur="pa-aš-ši-iṭ pa-aš-ši-ṭ", pret="p-ši-iṭ p-ši-ṭ"),
    "tear_out": Verb("a", pret="s-sú-uḫ s-sú-ḫ"),
    "gather": Verb("a", pret="l-qú-ut l-qú-t"),
    "destroy": Verb("u", pret="ḫa-al-li-iq ḫa-al-li-q", dur="ḫa-al-la-aq ḫa-al-la-q"),
    "break": Verb("e", pret="š-bi-ir š-bi-r"),
    "fall": Verb("a", dur="ma-aq-qú-ut ma-aq-qú-t"),
    "fell": Verb("u", dur="ša-am-qá-at ša-am-qá-t"),
    "repel": Verb("a", dur="sa-ak-ki-ip sa-ak-ki-p"),
    "kill": Verb("a", dur="da-a-ak du-uk-k"),
    "rule": Verb("e", dur="be-el be-el-l"),
    "abandon": Verb("e", dur="z-zi-ib z-zi-b"),
    "die": Verb("a", dur="ma-a-at mu-ut-t"),
    "obtain": Verb("a", dur="ra-aš-ši ra-aš-š"),
    "plunder": Verb("a", dur="ša-al-la-al ša-al-la-l"),
    "enter": Verb("e", dur="r-ru-ub r-ru-b", pret="ru-ub ru-b", imp="er-ba er-b"),
    "stand": Verb("a", dur="z-za-az z-za-az-z"),
    "be": Verb("a", dur="b-ba-aš-ši b-ba-aš-š"),
    "prosper": Verb("e", dur="š-še-er š-še-r"),
    "widen": Verb("a", dur="ra-ap-pí-iš ra-ap-pí-š"),
    "scatter": Verb("a", dur="s-sà-ap-pa-aḫ s-sà-ap-pa-ḫ"),
    "reconcile": Verb("a", dur="sa-al-li-im sa-al-li-m"),
    "rain": Verb("a", dur="za-an-nu-un za-an-nu-n"),
    "live": Verb("a", dur="ba-al-lu-uṭ ba-al-lu-ṭ"),
}

STATIVES = {  # without ending, and before one
    "split": ("pa-ṭe-er", "pa-aṭ-r"),
    "pierced": ("pa-li-iš", "pa-al-š"),
    "torn": ("na-si-iḫ", "na-as-ḫ"),
    "short": ("ka-ri", "ka-ri-"),
    "missing": ("ḫa-li-iq", "ḫa-al-q"),
    "dark": ("ta-ri-ik", "ta-ar-k"),
    "loose": ("ra-mi", "ra-mi-"),
    "intact": ("ša-li-im", "ša-al-m"),
    "wide": ("ra-pa-aš", "ra-ap-š"),
    "long": ("a-ri-ik", "ar-k"),
    "firm": ("ki-in", "ki-n"),
    "thick": ("ka-bi-ir", "ka-ab-r"),
    "strong": ("da-an", "da-an-n"),
    "well": ("ša-li-im", "ša-al-m"),
    "alive": ("ba-li-iṭ", "ba-al-ṭ"),
}
