"""Sumerian dedications, hymns and proverbs, and bilingual word lists."""

from jaxsae.demo import names
from jaxsae.demo.tablet import Tablet

_RULERS = (  # name, city of which he is lugal or ensí
    ("ur-nammu", "ur", "lugal"),
    ("šul-gi", "ur", "lugal"),
    ("amar-suen", "ur", "lugal"),
    ("gù-dé-a", "lagaš", "ensí"),
    ("šu-suen", "ur", "lugal"),
    ("ur-ba-ú", "lagaš", "ensí"),
    ("li-pí-it-iš-tár", "isin", "lugal"),
    ("ur-nin-gír-su", "lagaš", "ensí"),
    ("iš-me-da-gan", "isin", "lugal"),
    ("ìr-sîn", "larsa", "lugal"),
)
_DIVINE_EPITHETS = {
    "sîn": ("dumu-sag/n en-líl|-lá:sgen/d", "amar/n bàn|-da:nmz/a an|-na:sgen/d"),
    "enlil": ("lugal/n kur-kur|-ra:sgen/n", "kur-gal/n"),
    "ištar": ("nin/n é-an|-na:sgen/l", "nin/n kur-kur|-ra:sgen/n"),
    "ningirsu": ("ur-sag/n kala|-ga:nmz/a en-líl|-lá:sgen/d",),
    "gula": ("munus/n sag|-ga:nmz/a dumu/n an|-na:sgen/d",),
    "ea": ("lugal/n eridu|-ga:sgen/l", "en/n abzu/l"),
    "šamaš": ("dumu/n nanna/d", "di-ku/n an/n ki/n"),
    "šara": ("dumu/n ki/n ág/v inanna|-ka:sgen/d",),
    "nanše": ("nin/n uru/n", "dumu/n eridu|-ga:sgen/l"),
}
_CANAL = "*íd/n maḫ/a"
_FURNISHINGS = ("*gu-za/n maḫ/a", "alam/n na/n esi/n")
_WORKS = ("$temple", "*é/n gal/a", "*bàd/n gal/a", _CANAL, "gi-gun/n", *_FURNISHINGS)


def dedication(t: Tablet) -> None:
    """For a god, his lord (or lady), a ruler built a house: king or ensí, temple, city each follow from the names."""
    key = t.pick(list(_DIVINE_EPITHETS))
    god = names.GODS[key]
    ruler, city, title = t.pick(_RULERS)
    slots = {
        "god": f"{god.sumerian}/d",
        "temple": f"{god.temple}/l",
        "king": f"{ruler}/p",
        "city": f"{names.CITIES[city][2]}/l",
    }
    lord = "*nin" if god.feminine else "*lugal"
    if t.rng.random() < 0.5:
        t.write("$god|-ra:dat", "invocation", **slots)
    else:
        t.write("$god", "invocation", **slots)
    for epithet in t.pick_several(_DIVINE_EPITHETS[key], t.rng.randint(0, 2)):
        t.write(epithet, "invocation")
    t.write(f"{lord}|-a-ni:sani/n", "invocation")
    t.write("$king", "titulary", **slots)
    if title == "lugal":
        t.write("nita/n kala|-ga:nmz/a", "titulary")
        grand = t.rng.random() < 0.6
        t.write("*lugal/n $city" if grand else "*lugal/n $city|-ke:erg", "titulary", **slots)
        if grand:
            t.write("*lugal/n ki-en-gi/l ki-uri|-ke:erg/l", "titulary")
    else:
        t.write("*ensí/n $city|-ke:erg", "titulary", **slots)
    while t.room(25):
        work = t.pick_fresh(_WORKS)
        t.write(work, "building", **slots)
        if t.rng.random() < 0.35:
            t.write("ki/n ág|-gá:nmz|-ni:sani/v", "building")
        verb = "dím" if work in _FURNISHINGS else "ba-al" if work == _CANAL else "dù"
        agent = t.pick(("", "an-:agt|"))
        t.write(f"mu-:conj|na-:dim|{agent}{verb}/v", "building")
        if t.rng.random() < 0.3:
            t.write("ki|-bé:sbi/n mu-:conj|na-:dim|gi/v", "building")
        if t.room(60) and t.rng.random() < 0.4:
            t.write("nam-ti-l|a-ni:sani|-šè:term/n a/n mu-:conj|na-:dim|ru/v", "dedication")
        if t.room(190) and t.rng.random() < 0.5:
            t.write("ud/n $god|-ke:erg igi/n zi/a mu-:conj|ši-:dim|bar|-ra:nmz/v", "building", **slots)
    if t.length > 130 and t.rng.random() < 0.7:
        t.write("lú/n mu-sar|-ra:loc|-ba:sbi/n šu/n bí-:conj|íb-:agt|ùr|-a:nmz/v", "curse")
        plural = t.rng.random() < 0.5
        gods = "$god ù/pt $other" if plural else "$god"
        other = t.pick([k for k in _DIVINE_EPITHETS if k != key])
        spl = "|-ne:spl" if plural else ""
        t.write(
            f"{gods} suḫuš|-a-ni:sani/n ḫé-:mod|bu|-re:per{spl}/v",
            "curse",
            god=slots["god"],
            other=f"{names.GODS[other].sumerian}/d",
        )
        t.write(f"numun|-a-ni:sani/n ḫé-:mod|til|-le:per{spl}/v", "curse")


_PRAISES = (  # {its}: -zu where the god is addressed, -a-ni where spoken about
    "{lord}/n kur-kur|-ra:sgen/n",
    "{lord}/n me/n gal-gal|-la:nmz/a",
    "{lord}/n nam-tar|-{its}/n maḫ|-àm:cop/a",
    "inim|-{its}/n zi|-da:nmz/a",
    "é|-{its}/n an/n ki|-da:com/n mú|-a:nmz/v",
    "me|-{its}/n me/n nu-:mod|di/v",
    "{lord}/n ní/n gal/a gùr|-ru:nmz/v",
    "sag/n íl|-la:nmz/v an|-na:loc/n",
    "ki-tuš|-{its}/n kù|-ga:nmz/a",
    "nam-lugal/n an|-ta:abl/n è|-a:nmz/v",
    "mu|-{its}/n kur-kur|-ra:loc/n dùg|-ga:nmz/a",
    "šul-gi/p *lugal/n úri|-ma:sgen|-ra:dat/l nam-ti/n ḫé-:mod|na-:dim|šúm|-mu:per/v",
)


def praise(t: Tablet) -> None:
    """A hymn, to a god in the second person or about one in the third, closed by `praise be`."""
    key = t.pick(list(_DIVINE_EPITHETS))
    god = names.GODS[key]
    its = "zu:szu" if t.rng.random() < 0.5 else "a-ni:sani"
    lord = "nin" if god.feminine else t.pick(("lugal", "en"))
    slots = {"god": f"{god.sumerian}/d", "city": f"{names.CITIES[god.city][2]}/l"}
    t.write(f"{lord}/n $god {t.pick(_DIVINE_EPITHETS[key])}", "invocation", **slots)
    while t.room(35):
        t.write(t.pick_fresh(_PRAISES).format(lord=lord, its=its), "praise", **slots)
        if t.rng.random() < 0.3:
            t.write(f"$god {lord}|-mu:smy/n" if its[0] == "z" else f"$god {lord}/n $city", "praise", **slots)
    t.write("$god zà-mí/n", "praise", **slots)


_RICHES = ("kù", "še", "é", "udu", "gud", "dumu", "dam", "gigir")
_PROVERBS = (
    "lú/n {x}/n tuku|-e:erg/v {y}/n an-:conj|tuku/v lú/n {x}/n nu-:mod|tuku/v {y}/n nu-:mod|un-:agt|tuku/v",
    "{x}|-mu:smy/n {x}|-zu:szu|-gin:equ/n nu-:mod|un-:agt|gál/v",
    "ukur|-e:erg/n {x}|-a-ni:sani/n ì-:conj|gul|-e:per/v lugal|-e:erg/n {x}|-a-ni:sani/n ì-:conj|dù|-e:per/v",
    "{x}/n in-:conj|tuku/v {y}/n in-:conj|tuku/v ù/n sá/n nu-:mod|dug/v",
    "é-gal/n {x}|-àm:cop/n šà|-bi:sbi/n {y}|-àm:cop/n",
    "ka/n gál|-taka|-zu:szu/v {x}|-zu:szu/n ba-:conj|ra-:dim|an-:agt|túm/v",
    "dub-sar/n šu/n ka|-ta:abl/n sá|-a:nmz/v e-ne|-àm:cop/pn dub-sar|-àm:cop/n",
    "{x}/n gu|-e:per/v {y}/n gu|-e:per/v ki/n lugal|-la:sgen|-šè:term/n ba-:conj|gin/v",
)


def proverbs(t: Tablet) -> None:
    """Lines about having and not having; what the first half names, the second names again."""
    while True:
        x, y = t.pick_several(_RICHES, 2)
        t.write(t.pick_fresh(_PROVERBS).format(x=x, y=y), "proverb")
        if not t.room(50):
            return


_PEOPLE = (  # Sumerian, Akkadian
    *(("lugal", "king"), ("en", "lord"), ("nin", "lady"), ("dumu", "son"), ("šeš", "brother"), ("ad", "father")),
    *(("dub-sar", "scribe"), ("dam-gàr", "merchant"), ("simug", "smith"), ("sipa", "shepherd"), ("di-ku", "judge")),
)
_THINGS = (
    *(("é", "house"), ("é-gal", "palace"), ("ká", "gate"), ("iri", "city"), ("kur", "land"), ("bàd", "wall")),
    *(("kù-babbar", "silver"), ("kù-sig", "gold"), ("še", "barley"), ("ì-giš", "oil"), ("dub", "tablet")),
    *(("kaš", "beer"), ("zú-lum", "dates"), ("túg", "garment"), ("má", "boat"), ("inim", "word"), ("mu", "name")),
)
_OF_PEOPLE = (
    ("gal", "great"),
    ("kala|-ga:nmz", "strong"),
    ("maḫ", "exalted"),
    ("tur", "small"),
    ("zi|-da:nmz", "just"),
)
_OF_THINGS = (
    ("gal", "great"),
    ("gibil", "new"),
    ("libir|-ra:nmz", "old"),
    ("sig", "good"),
    ("kù", "pure"),
    ("tur", "small"),
)


def word_list(t: Tablet) -> None:
    """Sumerian entry, Akkadian equivalent: a noun by itself, then with adjectives or possessives in both languages."""
    t.logograms = 0  # the Akkadian column is there to be read
    while True:
        nouns, qualities = t.rng.choice(((_PEOPLE, _OF_PEOPLE), (_THINGS, _OF_THINGS)))
        sumerian, akkadian = t.pick(nouns)
        pairs = [(f"{sumerian}/n", f"@{akkadian}.nom")]
        if t.rng.random() < 0.6:
            for quality, adjective in t.pick_several(qualities, t.rng.randint(1, 4)):
                pairs.append((f"{sumerian}/n {quality}/a", f"@{akkadian}.nom+{adjective}"))
        else:
            for suffix, possessive in (("mu:smy", "ia"), ("zu:szu", "ka"), ("a-ni:sani", "šu")):
                pairs.append((f"{sumerian}|-{suffix}/n", f"@{akkadian}.nom.{possessive}"))
        for left, right in pairs:
            t.write(left, language="sumerian")
            t.write(right, language="akkadian")
            if not t.room(25):
                return
