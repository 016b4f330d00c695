"""Sumerian receipts and letter-orders."""

from typing import NamedTuple

from jaxsae.demo import names
from jaxsae.demo.tablet import Tablet


class Archive(NamedTuple):
    """What an archive deals in, and the months of its calendar."""

    livestock: bool
    months: tuple[str, ...]


_DREHEM = (
    *("maš-dà-gu", "šeš-da-gu", "u-bí-gu", "ki-siki-nin-a-zu", "ezem-nin-a-zu", "á-ki-ti"),
    *("ezem-šul-gi", "ezem-šu-suen", "ezem-maḫ", "ezem-an-na", "ezem-me-ki-gál", "še-kin-ku"),
)
_UMMA = (
    *("še-kin-ku", "sig-giš-ì-šub-ba", "še-kar-ra-gál-la", "nesag", "dal", "šu-numun"),
    *("min-èš", "é-iti-àš", "li-si", "šul-gi", "pa-ú-è", "dumu-zi"),
)
_ARCHIVES = (Archive(True, _DREHEM), Archive(False, _UMMA))
_ANIMALS = (
    "*udu/n niga/a",
    "*udu/n ú/a",
    "*máš-gal/n ú/a",
    "*sila/n ga/n",
    "*gud/n niga/a",
    "*máš/n gaba/n",
    "*áb/n maḫ/a",
    "*udu/n aslum/a",
    "*anše/n libir/a",
    "*udu/n gukkal/a",
)
_STORES = (
    "*gur/me *lugal/n *še/n",
    "*sìla/me *kaš/n sig/a",
    "*sìla/me *ninda/n",
    "*gín/me *ì-giš/n",
    "*ma-na/me *síg/n du/a",
    "*gín/me *kù-babbar/n",
    "*sìla/me *zíd/n gu/a",
    "*gú/me *gi/n",
    "*gur/me *lugal/n *zú-lum/n",
    "*ma-na/me *urudu/n",
)
_PURPOSES = (
    "sá-dug/n $god",
    "é-muḫaldim|-šè:term/n",
    "é/n $god",
    "šà-gal/n érin|-na:sgen|-šè:term/n",
    "siskur/n šà/n é-gal/n",
    "kaskal|-šè:term/n",
)


_ENDINGS = (
    "ki/n $head|-ta:abl $a|-e:erg ì-:conj|dab/v",
    "ki/n $head|-ta:abl $a šu/n ba-:conj|ti/v",
    "ki/n $a|-ta:abl $head|-e:erg ì-:conj|dab/v",
    "$head šu/n ba-:conj|an-:agt|ti/v",
    "ki/n $head|-ta:abl ba-:conj|zi/v",
    "zi|-ga:nmz/v ki/n $head",
)


def receipt(t: Tablet) -> None:
    """Goods, from whom, who took charge, month, year: the head of the bureau gives the reign away, hence the year."""
    archive, reign = t.pick(_ARCHIVES), t.pick(names.UR_REIGNS)
    temple = names.GODS[t.pick(("enlil", "sîn", "ištar", "šara", "šamaš"))].sumerian
    people = [f"{name}/p" for name in t.pick_several(names.SUMERIANS, 5 + t.size // 120)]
    slots = dict(zip("ab", people, strict=False)) | {"head": f"{t.pick(reign.marks)}/p", "god": f"{temple}/d"}
    kinds = t.pick_several(_ANIMALS if archive.livestock else _STORES, 3)
    daily, total = t.rng.random() < 0.4, 0
    while True:
        if daily:
            t.write("u/n $day|-kam:ord", "date", day=t.number(t.rng.randint(1, 29)))
        for kind in t.pick_several(kinds, t.rng.randint(1, 3)):
            amount = t.rng.randint(1, 25 if archive.livestock else 59)
            total += amount
            t.write(f"$n {kind}", n=t.number(amount))
        if t.rng.random() < 0.5:
            title = t.pick(("", "", "*dub-sar/n", "*sukkal/n", "*ensí/n", "*sipa/n", "*nu-bànda/n", "*ugula/n"))
            handing = t.pick(("mu-:conj|DU/v $who", "gìr/n $who", "ki/n $who|-ta:abl", "$who šu/n ba-:conj|ti/v"))
            t.write(handing, "transfer", who=f"{t.pick(people[2:])} {title}")
        elif t.rng.random() < 0.5:
            t.write(t.pick(_PURPOSES), god=slots["god"])
        if not t.room(130) or total > 1000:
            break
    if archive.livestock and t.room(90):
        t.write("*šu-nígin/n $n *udu/n", "total", n=t.number(total))
    t.write(t.pick(_ENDINGS), "transfer", **slots)
    if t.room(40):
        t.write("kišib/n $b *dumu/n $a", "transfer", **slots)
    t.write(f"iti/n {t.pick(archive.months)}/m mu/n {t.pick(reign.years)}", "date")


_ORDERS = (
    "$n $goods $c|-ra:dat ḫé-:mod|na-:dim|ab-:agt|šúm|-mu:per/v",
    "$c *dumu/n $d šu/n ḫé-:mod|bar|-re:per/v",
    "$n $goods ki/n $c|-ta:abl šu/n ḫa-:mod|ba-:conj|an-:agt|ti/v",
    "*é/n $c|-ka:sgen|-ta:abl $n $goods ḫé-:mod|na-:dim|ab-:agt|šúm|-mu:per/v",
    "$c|-da:com inim/n na-:mod|an-:agt|da-:dim|bal|-e:per/v",
    "*a-šà/n $c|-ka:sgen *gud/n ḫé-:mod|bí-:dim|íb-:agt|ù/v",
)
_ORDER_CLOSINGS = (
    "nam-:mod|mi-:conj|gur|-re:per/v",
    "a-ba/pn *šeš|-mu:smy|-gin:equ/n",
    "ul|-la:loc|-bi:sbi|-šè:term/av",
    "a-ma-ru|-kam:cop/n",
    "lú/n kin-gi-a/n na-:mod|an-:agt|gur|-re:per/v",
)


def letter_order(t: Tablet) -> None:
    """`To so-and-so speak`: orders that goods be handed over, written to a subordinate."""
    a, b, *people = (f"{name}/p" for name in t.pick_several(names.SUMERIANS, 5))
    slots = {"a": a, "b": b}
    if t.rng.random() < 0.4:
        t.write("$b na-:mod|ab-:agt|bé|-a:nmz/v $a|-ra:dat ù-:mod|na-:dim|a-:agt|dug/v", "address", **slots)
    else:
        t.write("$a|-ra:dat ù-:mod|na-:dim|a-:agt|dug/v", "address", **slots)
    goods = t.pick(_STORES)
    while True:
        c, d = t.pick_several(people, 2)
        t.write(t.pick_fresh(_ORDERS), "request", n=t.number(t.rng.randint(1, 59)), goods=goods, c=c, d=d)
        if not t.room(90):
            break
    for closing in t.pick_several(_ORDER_CLOSINGS, t.rng.randint(1, 2)):
        t.write(closing, "closing")
