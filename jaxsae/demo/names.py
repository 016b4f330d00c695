"""Names of gods, cities, people, months and years, as data. Commoner ones stand first in every list of choices."""

from typing import NamedTuple


class God(NamedTuple):
    """A deity: how it is spelled in Akkadian, in word signs (if it is) and in Sumerian, with temple and city."""

    akkadian: str
    logogram: str
    sumerian: str
    feminine: bool
    temple: str
    city: str  # a key of CITIES


GODS = {
    "šamaš": God("šamaš", "UTU", "utu", False, "é-babbar", "sippar"),
    "sîn": God("sîn", "EN.ZU", "nanna", False, "é-kiš-nu-gál", "ur"),
    "marduk": God("marduk", "AMAR.UTU", "asal-lú-ḫi", False, "é-sag-íl", "babylon"),
    "ištar": God("iš-tar", "INANNA", "inanna", True, "é-an-na", "uruk"),
    "adad": God("adad", "IŠKUR", "iškur", False, "é-u-gal-gal-la", "karkar"),
    "enlil": God("en-líl", "EN.LÍL", "en-líl", False, "é-kur", "nippur"),
    "ea": God("é-a", "EN.KI", "en-ki", False, "é-abzu", "eridu"),
    "ningirsu": God("nin-gír-su", "NIN.GÍR.SU", "nin-gír-su", False, "é-ninnu", "girsu"),
    "gula": God("gu-la", "ME.ME", "ba-ú", True, "é-tar-sír-sír", "girsu"),
    "dagan": God("da-gan", "", "da-gan", False, "é-ki-si-ga", "mari"),
    "aššur": God("aš-šur", "AN.ŠÁR", "aš-šur", False, "é-šár-ra", "assur"),
    "šara": God("ša-ra", "ŠÁRA", "šára", False, "é-šà-ge-pà-da", "umma"),
    "nanše": God("na-an-še", "NANŠE", "nanše", True, "é-sirara", "nina"),
    "nergal": God("né-er-gal", "NÈ.ERI.GAL", "nergal", False, "é-mes-lam", "kutha"),
}
CITIES = {  # Akkadian, word sign, Sumerian genitive
    "babylon": ("ba-bi-lim", "KÁ.DINGIR.RA", "ká-dingir-ra|-ka:sgen"),
    "sippar": ("sí-ip-pa-ar", "ZIMBIR", "zimbir|-ra:sgen"),
    "ur": ("ú-ri-im", "ÚRI", "úri|-ma:sgen"),
    "uruk": ("ú-ru-uk", "UNUG", "unug|-ga:sgen"),
    "nippur": ("ni-ip-pu-ur", "NIBRU", "nibru|-a:sgen"),
    "eridu": ("e-ri-du", "ERIDU", "eridu|-ga:sgen"),
    "girsu": ("gír-su", "GÍR.SU", "gír-su|-a:sgen"),
    "karkar": ("kár-ka-ar", "IM", "karkar|-a:sgen"),
    "umma": ("um-ma", "UMMA", "umma|-a:sgen"),
    "nina": ("ni-na", "NINA", "nina|-a:sgen"),
    "assur": ("aš-šur", "BAL.TIL", "aš-šur|-a:sgen"),
    "mari": ("ma-ri", "MÁ.RI", "ma-rí|-a:sgen"),
    "kutha": ("ku-ta", "GÚ.DU.A", "gú-du-a|-ka:sgen"),
    "larsa": ("la-ar-sa", "UD.UNUG", "larsam|-ma:sgen"),
    "isin": ("ì-si-in", "Ì.SI.IN", "ì-si-in|-na:sgen"),
    "lagaš": ("la-ga-aš", "ŠIR.BUR.LA", "lagaš|-a:sgen"),
    "akkad": ("a-kà-dè", "A.GA.DÈ", "a-ga-dè|-a:sgen"),
    "ešnunna": ("èš-nun-na", "ÈŠ.NUN.NA", "èš-nun-na|-ka:sgen"),
}

# Akkadian names are sentences: god and predicate in either order
NAME_ENDS = [
    "i-din-nam",
    "na-ṣi-ir",
    "ga-mil",
    "ma-gir",
    "ḫa-zi-ir",
    "ra-bi",
    "mu-ba-lí-iṭ",
    "še-mi",
    "a-bi",
    "i-qí-ša-am",
    "re-me-ni",
    "mu-ša-lim",
    "ta-a-a-ar",
]
NAME_STARTS = [
    "nu-úr",
    "i-din",
    "ṣíl-lí",
    "a-wi-il",
    "i-bi",
    "ip-qú",
    "pu-zur",
    "li-pí-it",
    "ú-bar",
    "ÌR",
    "šu",
    "ri-iš",
]
NAME_GODS = ["šamaš", "sîn", "marduk", "adad", "ištar", "ea", "dagan"]
MEN = [
    "a-ḫu-um",
    "a-pil-ì-lí-šu",
    "ḫu-za-lum",
    "gi-mil-lum",
    "be-la-nu-um",
    "ì-lí-i-din-nam",
    "ta-ri-bu-um",
    "a-ḫu-wa-qar",
    "i-ba-lu-uṭ",
    "a-at-ta-a",
    "e-tel-pi-ša",
    "il-šu-ba-ni",
    "qí-iš-tum",
    "ì-lí-ma-a-bi",
    "ma-an-nu-um",
    "a-bu-wa-qar",
    "be-lí-a-ša-re-ed",
    "i-ku-un-pi-sîn",
    "ma-ri-er-ṣe-tim",
    "šu-mi-a-ḫi-ia",
    "ḫa-ab-lum",
    "mu-na-wi-rum",
]
WOMEN = [
    "be-el-ta-ni",
    "ri-ba-tum",
    "a-ḫa-tum",
    "la-ma-sí",
    "na-ra-am-tum",
    "mu-na-wi-ir-tum",
    "il-ta-ni",
    "ni-ši-i-ni-šu",
    "ḫu-zu-la-tum",
    "ta-ra-am-é-a",
    "a-ma-at-šamaš",
    "e-ri-iš-ti-a-a",
    "da-mi-iq-tum",
    "ma-an-na-tum",
]
SUMERIANS = [
    "ur-nanna",
    "lú-kal-la",
    "lugal-ezem",
    "a-kal-la",
    "ur-ba-ú",
    "da-da",
    "lú-utu",
    "ur-kù-nun-na",
    "lugal-kù-zu",
    "a-tu",
    "lú-nin-gír-su",
    "ab-ba-kal-la",
    "ur-šára",
    "lú-nanna",
    "lugal-ur-ra-ni",
    "ur-lamma",
    "šeš-kal-la",
    "lú-dingir-ra",
    "ur-gi-gir",
    "a-ḫu-ni",
    "nu-úr-sîn",
    "šu-iš-tar",
    "ba-zi",
    "lugal-nesag-e",
    "ur-sukkal",
    "in-sa-sa",
    "na-sila-é-maš",
    "ur-en-líl-lá",
    "lú-ba-ú",
    "nu-úr-adad",
    "pu-zur-iš-tar",
    "lugal-má-gur-re",
    "lú-ša-lim",
    "ka-ka",
    "lugal-á-zi-da",
    "ur-iškur",
    "a-a-kal-la",
    "i-din-dagan",
]

AKKADIAN_MONTHS = [
    "BÁRA.ZAG.GAR",
    "GUD.SI.SÁ",
    "SIG.GA",
    "ŠU.NUMUN.A",
    "NE.NE.GAR",
    "KIN.INANNA",
    "DU.KÙ",
    "APIN.DU.A",
    "GAN.GAN.È",
    "AB.È",
    "ZÍZ.A",
    "ŠE.KIN.KU",
]


class Reign(NamedTuple):
    """A king of dated archives: who gives his reign away, and the names of his years (template strings).

    `marks` are the heads of the livestock bureau under a king of Ur, the god of the oath under one of Babylon or Larsa.
    """

    king: str
    marks: tuple[str, ...]
    years: tuple[str, ...]


UR_REIGNS = (
    Reign(
        "amar-suen",
        ("ab-ba-sa-ga", "lú-dingir-ra"),
        (
            "amar-suen/p *lugal/n",
            "amar-suen/p *lugal|-e:erg/n ur-bí-lum/l mu-:conj|ḫul/v",
            "gu-za/n maḫ/a en-líl|-lá:sgen/d ba-:conj|dím/v",
            "en/n maḫ-gal-an-na/p en/n nanna/d ba-:conj|ḫun/v",
            "ša-aš-ru-um/l ba-:conj|ḫul/v",
            "ḫu-ḫu-nu-ri/l ba-:conj|ḫul/v",
        ),
    ),
    Reign(
        "šu-suen",
        ("in-ta-è-a", "šu-ma-ma"),
        (
            "šu-suen/p *lugal/n",
            "si-ma-núm/l ba-:conj|ḫul/v",
            "bàd/n mar-tu/l ba-:conj|dù/v",
            "na-rú-a/n maḫ/a en-líl/d nin-líl|-ra:dat/d mu-:conj|ne-:dim|dù/v",
            "ma-da/n za-ab-ša-li/l ba-:conj|ḫul/v",
            "é/n šára/d umma|-ka:sgen/l mu-:conj|dù/v",
        ),
    ),
    Reign(
        "šul-gi",
        ("na-sa", "na-lu"),
        (
            "ki-maš/l ba-:conj|ḫul/v",
            "ḫa-ar-ši/l ba-:conj|ḫul/v",
            "šul-gi/p *lugal|-e:erg/n si-mu-ru-um/l mu-:conj|ḫul/v",
            "en/n nanna/d máš|-e:erg/n ì-:conj|pà/v",
        ),
    ),
    Reign(
        "i-bí-suen",
        ("lugal-má-gur-re", "šu-ku-bu-um"),
        (
            "i-bí-suen/p *lugal/n",
            "en/n inanna/d máš|-e:erg/n ì-:conj|pà/v",
            "i-bí-suen/p *lugal/n úri|-ma:sgen|-ke:erg/l si-mu-ru-um/l mu-:conj|ḫul/v",
        ),
    ),
)

BABYLON_REIGNS = (
    Reign(
        "ḫa-am-mu-ra-pí",
        ("marduk",),
        (
            "ḫa-am-mu-ra-pí/p lugal|-e:erg/n bàd/n zimbir|-ra:sgen/l mu-:conj|un-:agt|dù|-a:nmz/v",
            "ḫa-am-mu-ra-pí/p lugal|-e:erg/n ma-da/n é-mu-ut-ba-lum/l šu/n ba-:conj|an-:agt|ti/v",
            "ḫa-am-mu-ra-pí/p lugal|-e:erg/n íd/n ḫa-am-mu-ra-pí/p mu-:conj|un-:agt|ba-al/v",
        ),
    ),
    Reign(
        "sa-am-su-i-lu-na",
        ("marduk",),
        (
            "sa-am-su-i-lu-na/p lugal|-e:erg/n gu-za/n bára/n nanna|-ra:dat/d in-:conj|na-:dim|dím/v",
            "sa-am-su-i-lu-na/p lugal|-e:erg/n bàd/n ì-si-in|-na:sgen/l in-:conj|dù|-a:nmz/v",
        ),
    ),
    Reign(
        "ri-im-sîn",
        ("sîn",),
        (
            "ri-im-sîn/p lugal|-e:erg/n ì-si-in|-na:sgen/l in-:conj|dab|-ba:nmz/v",
            "ri-im-sîn/p lugal|-e:erg/n bàd/n larsam|-ma:sgen/l mu-:conj|un-:agt|dù|-a:nmz/v",
        ),
    ),
    Reign(
        "a-bi-e-šu-uḫ",
        ("marduk",),
        (
            "a-bi-e-šu-uḫ/p lugal|-e:erg/n alam/n kù-sig/n é-babbar|-šè:term/l in-:conj|ni-:dim|in-:agt|ku/v",
            "a-bi-e-šu-uḫ/p lugal|-e:erg/n íd/n idigna/l giš/n bí-:conj|in-:agt|kéš|-da:nmz/v",
        ),
    ),
)
