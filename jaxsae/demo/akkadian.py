"""Akkadian omens and royal inscriptions."""

from jaxsae.demo import names, vocabulary
from jaxsae.demo.tablet import Tablet

_OMEN_PARTS = {  # part of the liver: what it speaks of
    "gall": "king",
    "path": "army",
    "gate": "palace",
    "station": "god",
    "finger": "king",
    "increment": "house",
    "strength": "army",
    "wellbeing": "house",
    "liver": "land",
    "lung": "land",
}
_BAD = ("split", "short", "dark", "torn", "missing", "pierced", "loose")
_GOOD = ("long", "firm", "intact", "wide", "thick", "strong")
_APODOSES = {  # topic: (good, bad)
    "king": (
        (
            "@king.nom @rival.acc ú-ul/pt !obtain.dur.3s",
            "@king.nom @enemy.acc !kill.dur.3s",
            "@king.nom @land.acc !rule.dur.3s",
        ),
        ("@king.nom !die.dur.3s", "@enemy.nom @land.acc !rule.dur.3s", "@king.nom i-na/pr @road.gen !die.dur.3s"),
    ),
    "army": (
        (
            "@army.nom @enemy.acc !repel.dur.3s",
            "@army.nom @booty.acc !plunder.dur.3s",
            "@prince.nom @enemy.acc !fell.dur.3s",
        ),
        (
            "@enemy.nom @army.acc !fell.dur.3s",
            "@army.nom i-na/pr @road.gen !fall.dur.3s",
            "@enemy.nom @booty.acc !plunder.dur.3s",
        ),
    ),
    "palace": (
        ("@palace.nom !widen.dur.3s", "@prince.nom a-na/pr @palace.gen !enter.dur.3s"),
        ("@revolt.nom i-na/pr @palace.gen !be.dur.3s", "@enemy.nom a-na/pr @palace.gen !enter.dur.3s"),
    ),
    "god": (
        ("@god.nom it-ti/pr @man.gen !reconcile.dur.3s", "@god.nom i-na/pr @house.cs @man.gen !stand.dur.3s"),
        (
            "@god.pnom @land.acc !abandon.dur.3p",
            "@god.nom it-ti/pr @man.gen ze-ni/v",
            "@god.nom @prayer.cs @man.gen ú-ul/pt !hear.dur.3s",
        ),
    ),
    "house": (
        ("@house.nom šu-ú/pn !widen.dur.3s", "@man.nom @profit.acc !obtain.dur.3s", "@lord.cs @house.gen !live.dur.3s"),
        (
            "@house.nom šu-ú/pn !scatter.dur.3s",
            "@wife.cs @man.gen @house.acc.ša !abandon.dur.3s",
            "@lord.cs @house.gen !die.dur.3s",
        ),
    ),
    "land": (
        ("@harvest.cs @land.gen !prosper.dur.3s", "@rain.nom i-na/pr @land.gen !rain.dur.3s"),
        ("@famine.nom i-na/pr @land.gen !be.dur.3s", "@army.nom ù/pt @land.nom !scatter.dur.3p"),
    ),
}


def omens(t: Tablet) -> None:
    """Liver omens, a part to a section. The right side is ours, the left the enemy's: there a bad sign bodes well."""
    conditional = t.pick(("šum-ma/pt", "BE/pt", "DIŠ/pt"))
    while True:
        part = t.pick(list(_OMEN_PARTS))
        good, bad = _APODOSES[_OMEN_PARTS[part]]
        person = "3f" if vocabulary.NOUNS[part].feminine else "3m"
        for _ in range(t.rng.randint(2, 6)):
            favourable, side = t.rng.random() < 0.5, t.rng.choice(("", "right", "left"))
            state = t.pick(_GOOD if favourable else _BAD)
            if not side:
                t.write(f"{conditional} @{part}.nom ~{state}.{person}", "protasis")
            elif t.rng.random() < 0.6:
                t.write(f"{conditional} @{part}.nom @{side}.acc ~{state}.{person}", "protasis")
            else:
                mark = "@weapon.nom ša-ki-in/v" if favourable else "@hole.nom na-di/v"
                t.write(f"{conditional} i-na/pr @{side}.cs @{part}.gen {mark}", "protasis")
            t.write(t.pick(good if favourable != (side == "left") else bad), "apodosis")
            if not t.room(40):
                return


_KINGS = (  # name, father, city, title, gods with their relation to him
    ("ḫa-am-mu-ra-pí/p", "EN.ZU|-mu-ba-lí-iṭ/p", "babylon", "LUGAL", ("marduk", "šamaš")),
    ("sa-am-su-i-lu-na/p", "ḫa-am-mu-ra-pí/p", "babylon", "LUGAL", ("marduk", "šamaš", "ištar")),
    ("zi-im-ri-li-im/p", "ia-aḫ-du-li-im/p", "mari", "LUGAL", ("dagan", "adad")),
    ("ia-aḫ-du-li-im/p", "ia-gi-id-li-im/p", "mari", "LUGAL", ("šamaš", "dagan")),
    ("na-ra-am|-EN.ZU/p", "ma-an-iš-tu-šu/p", "akkad", "LUGAL", ("ištar", "enlil")),
    ("i-ri-šum/p", "i-lu-šum-ma/p", "assur", "ÉNSI", ("aššur", "adad")),
    ("šar-ru-um-ki-in/p", "i-ku-nu-um/p", "assur", "ÉNSI", ("aššur", "ištar")),
    ("i-pí-iq|-IŠKUR/p", "i-ba-al-pi-el/p", "ešnunna", "LUGAL", ("sîn", "adad")),
)
_ASSYRIANS = (  # later, without mimation
    ("aš-šur|-PAP-A/p", "TUKUL|-MAŠ/p"),
    ("sîn|-PAP.MEŠ|-eri-ba/p", "LUGAL|-GI.NA/p"),
    ("aš-šur|-PAP-AŠ/p", "sîn|-PAP.MEŠ|-eri-ba/p"),
    ("aš-šur|-DÙ-A/p", "aš-šur|-PAP-AŠ/p"),
)
_WORKS = ("$temple @house.acc", "@wall.acc", "@gate.acc", "@palace.acc", "@river.acc")


def royal_inscription(t: Tablet) -> None:
    """A king of the second millennium or before, his titles, what he built for whom, and a curse."""
    king, father, city, title, gods = t.pick(_KINGS)
    epithets = (
        f"{title}/n da-an-n|u-um:nom/a",
        f"{title}/n ki-ib-ra-t|i-im:gen/n ar-ba-i-im/nu",
        "mi-gi-ir/n $god",
        "na-ra-am/n $god",
        "pa-li-iḫ/v $god",
    )
    _inscribe(t, king, f"{title}/n {t.city(city)} DUMU/n {father} {title}/n {t.city(city)}", epithets, gods)


def assyrian_inscription(t: Tablet) -> None:
    """An inscription of the first millennium: cases without mimation (šar-ru), many word signs."""
    king, father = t.pick(_ASSYRIANS)
    of_assyria = "MAN/n KUR/n aš-šur/l"
    epithets = ("ŠID/n $god", "MAN/n kib-rat/n er-bet|-ti:gen/nu", "pa-liḫ/v $god")
    titles = f"MAN/n GAL/a MAN/n dan-n|u:nom/a MAN/n KIŠ/n {of_assyria} DUMU/n {father} {of_assyria}"
    _inscribe(t, king, titles, epithets, ("aššur", "ištar", "adad"))


def _inscribe(t: Tablet, king: str, titles: str, epithets: tuple[str, ...], gods: tuple[str, ...]) -> None:
    """The text itself, after `a-na-ku` in the first person to its end, otherwise in the third."""
    main, other = t.pick_several(gods, 2)
    god = names.GODS[main]
    slots = {"king": king, "god": t.god(main), "other": t.god(other), "temple": f"{god.temple}/l"}
    lord = "lady" if god.feminine else "lord"
    first_person = t.rng.random() < 0.5
    person, his, to_him = ("1s", "ia", "nam") if first_person else ("3s", "šu", "šum")
    if t.room(150) and t.rng.random() < 0.4:
        t.write(f"a-na/pr $god @{lord}.gen+great+exalted @{lord}.gen.{his}", "invocation", **slots)
    t.write("a-na-ku/pn $king" if first_person else "$king", "titulary", **slots)
    for epithet in t.pick_several(epithets, t.rng.randint(0, 3)):
        t.write(epithet, "titulary", **slots)
    t.write(titles, "titulary")
    while t.room(70):
        if t.rng.random() < 0.5:
            t.write(f"i-nu-ma/pt $god @{lord}.nom.{his} @land.acc+wide", "building", **slots)
            t.write(f"i-din|-{to_him}:dsuf|-ma:ma/v", "building")
        work = t.pick_fresh(_WORKS)
        verb = "dig" if work.startswith("@river") else t.pick(("build", "make"))
        adjective = t.pick(("great", "new", "pure", "exalted"))
        t.write(f"{work}+{adjective} a-na/pr $god @{lord}.gen.{his} !{verb}.pret.{person}", "building", **slots)
        if t.rng.random() < 0.35:
            t.write(f"a-na/pr @life.gen.{his} !give_as_gift.pret.{person}", "dedication")
    if t.room(40):
        t.write("ša/pn @name.acc.ia ša-aṭ-r|a-am:acc/a !erase.dur.3s.sub", "curse")
        both, curse = ("$god ù/pt $other", "3p") if t.rng.random() < 0.6 else ("$god", "3s")
        t.write(f"{both} SUḪUŠ|-sú:his/n !tear_out.prec.{curse}", "curse", **slots)
        if t.room(25):
            t.write(f"ù/pt @seed.acc.šu !gather.prec.{curse}", "curse")
