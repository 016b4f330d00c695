"""Akkadian accounts and contracts, written mostly in word signs and dated by Sumerian names of years."""

from jaxsae.demo import names
from jaxsae.demo.tablet import Tablet

_GOODS = (  # what, its measure (none where counted), the most of it in one entry
    ("ŠE/n", "GUR/me", 30),
    ("KÙ.BABBAR/n", "GÍN/me", 20),
    ("UDU.ḪI.A/n", "", 90),
    ("SÍG/n", "MA.NA/me", 40),
    ("Ì.GIŠ/n", "SÌLA/me", 60),
    ("ZÚ.LUM/n", "GUR/me", 20),
    ("GUD.ḪI.A/n", "", 20),
    ("TÚG.ḪI.A/n", "", 30),
    ("KAŠ/n", "SÌLA/me", 60),
    ("ZÍD.DA/n", "SÌLA/me", 60),
)


def _date(t: Tablet, reign: names.Reign) -> None:
    """Month and day in word signs, then the year's name, which is Sumerian also in an Akkadian text."""
    t.write(f"ITI/n {t.pick(names.AKKADIAN_MONTHS)}/m UD/n $day|.KAM:ord", "date", day=t.number(t.rng.randint(1, 29)))
    t.write(f"mu/n {t.pick(reign.years)}", "date", language="sumerian")


def account(t: Tablet) -> None:
    """Entries of one commodity to persons, their true total, who gave and who received, the date."""
    reign = t.pick(names.BABYLON_REIGNS)
    goods, measure, most = t.pick(_GOODS)
    steward, giver = t.men(2)
    people = t.men(t.rng.randint(2, 4) + t.size // 120)
    trade = t.pick(("weaver", "smith", "shepherd", "boatman", "scribe", "merchant"))
    total = 0
    while True:
        amount = t.rng.randint(1, most)
        total += amount
        form = t.rng.choice(("$n {m} {g} $who", "$n {m} {g} $who @{trade}.nom", "$n {m} {g} ša/pn $who"))
        t.write(form.format(m=measure, g=goods, trade=trade), "none", n=t.number(amount), who=t.pick(people))
        if not t.room(120) or total > 400:
            break
    slots = {"n": t.number(total), "from": giver, "to": steward}
    if t.length > 60:
        t.write(f"ŠU.NÍGIN/n $n {measure} {goods}", "total", **slots)
    ending = t.rng.choice(
        (
            "nam-ḫa-ar-ti/n $to KI/pr $from",
            "$to a-na/pr @palace.gen !give.pret.3s",
            "i-na/pr ŠU/n $from $to !receive.pret.3s",
        )
    )
    t.write(ending, "transfer", **slots)
    if t.room(30):
        _date(t, reign)


def contract(t: Tablet) -> None:
    """A loan, a sale or a hire before witnesses: what is weighed or measured follows from what was lent."""
    reign = t.pick(names.BABYLON_REIGNS)
    kind = t.pick(("loan", "loan", "sale", "hire"))
    slots = dict(zip(("a", "fa", "b", "fb", "c"), t.men(5), strict=True))
    slots |= {"god": t.god(reign.marks[0]), "king": f"{reign.king}/p"}
    parties = "KI/pr $a DUMU/n $fa $b DUMU/n $fb" if t.room(150) else "KI/pr $a $b"
    syllabic = t.rng.random() < 0.4
    if kind == "loan":
        silver = t.rng.random() < 0.5
        goods, measure = ("KÙ.BABBAR/n", "GÍN/me") if silver else ("ŠE/n", "GUR/me")
        slots["n"] = t.number(t.rng.randint(1, 30))
        t.write(f"$n {measure} {goods} MÁŠ/n UTU/d ú-ṣa-ab/v {parties}", "debt", **slots)
        t.write("!take.pret.3s" if syllabic else "ŠU.BA.AN.TI/v", "debt")
        if t.room(60):
            t.write("a-na/pr @harvest.gen" if syllabic else "UD/n BURU.ŠÈ/n", "debt")
            by_weight, by_volume = ("!weigh.dur.3s", "!measure.dur.3s") if syllabic else ("Ì.LÁ.E/v", "Ì.ÁG.E/v")
            pays = by_weight if silver else by_volume
            t.write(f"{goods} ù/pt MÁŠ.BI/n {pays}", "debt")
    elif kind == "sale":
        thing = t.pick(("SAR/me É.DÙ.A/n DA/pr É/n $c", "IKU/me A.ŠÀ/n DA/pr A.ŠÀ/n $c", "SAG/n ÌR/n MU.NI/n $c"))
        slots |= {"n": t.number(t.rng.randint(1, 9)), "price": t.number(t.rng.randint(2, 59))}
        t.write(f"$n {thing} {parties}", "sale", **slots)
        t.write("!buy.pret.3s" if syllabic else "IN.ŠI.ŠÁM/v", "sale")
        price = "a-na/pr ŠÁM/n ga-am-r|i-im:gen/a" if syllabic else "ŠÁM/n TIL.LA/a"
        pays = "!weigh.pret.3s" if syllabic else "IN.NA.LÁ/v"
        t.write(f"{price} $price GÍN/me KÙ.BABBAR/n {pays}", "sale", **slots)
        if t.room(120):
            t.write("U.KÚR.ŠÈ/av LÚ/n LÚ.RA/n INIM/n NU.GÁ.GÁ.A/v", "sale")
            t.write("MU/pr $god ù/pt $king IN.PÀ.DÈ.MEŠ/v", "oath", **slots)
    else:
        slots["n"] = t.number(t.rng.randint(1, 12))
        t.write("$a KI/pr $fa AD.A.NI/n $b a-na/pr MU/n DIŠ|.KAM:ord/nu !hire.pret.3s", "hire", **slots)
        t.write("Á.BI/n $n GÍN/me KÙ.BABBAR/n", "hire", **slots)
        t.write("!weigh.dur.3s" if syllabic else "Ì.LÁ.E/v", "hire")
    while t.room(75):
        title = "DUMU/n $father" if t.rng.random() < 0.7 else f"@{t.pick(('scribe', 'judge', 'merchant'))}.nom"
        t.write(f"IGI/pr $witness {title}", "witnesses", witness=t.man(), father=t.man())
    if t.room(20):
        _date(t, reign)
