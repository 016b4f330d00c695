"""Akkadian letters and prayers: whoever is addressed shows in every verb and suffix."""

from jaxsae.demo import names
from jaxsae.demo.tablet import Tablet

_WANTED = (
    *("silver", "barley", "sheep", "tablet", "slave", "oil", "garment"),
    *("ox", "wool", "dates", "boat", "maid", "beer"),
)
_PATRONS = (("šamaš", "marduk"), ("šamaš", "adad"), ("sîn", "šamaš"), ("ea", "marduk"), ("ištar", "dagan"))

# {you}: 2m or 2f; {ka}, {kum}, {yours}: the suffixes to match; {they}: 3s or 3p as $who is one or two persons
_REPORTS = {  # what is told: the formula it is
    "$who ki-a-am/av !inform.pret.{they}.vent.ni um-ma/pt {he}|-ma:ma/pn": "quoted speech",
    "aš-šum/pr @{x}.gen ša/pn !send.pret.{you}.vent": "none",
    "a-nu-um-ma/av $a a-na/pr ma-aḫ-ri|-{ka}:{yours}/n !dispatch.perf.1s.vent": "none",
    "@{x}.acc a-na/pr $who !give.pret.1s": "none",
    "i-na-an-na/av @{x}.acc !bring.perf.1s.vent.{kum}": "none",
    "$who @{x}.acc ú-ul/pt !give.pret.{they}": "none",
    "@{x}.acc ša/pn $a !take.pret.3s.sub a-mu-ur/v": "none",
    "$who a-na/pr @{place}.gen !go.pret.{they}.vent.ma @{x}.acc !receive.pret.{they}": "none",
    "@{x}.acc+{how} !bring.prec.1s.vent.{kum}": "none",
    "@slave.pnom ša/pn $a a-na/pr @{place}.gen !go.pret.3p.vent": "none",
    "@witness.pnom @tablet.acc ša/pn $a !hear.pret.3p": "none",
    "$who it-ti/pr @{x}.gen !seize.perf.{they}": "none",
    "iš-tu/pr @{place}.gen $who @{x}.acc !return.pret.{they}": "none",
    "@{x}.nom ša/pn $a i-na/pr @{place}.gen !be.dur.3s": "none",
    "um-ma/pt {thou}|-ma:ma/pn @{x}.acc+{how} !bring.perf.1s.vent.{kum}": "quoted speech",
}
_REQUESTS = (
    "@{x}.acc a-na/pr $a !give.imp.{you}",
    "@{x}.acc+{how} !bring.imp.{you}.vent",
    "ṭe-em|-{ka}:{yours}/n !send.imp.{you}.vent",
    "la/pt !delay.dur.{you} @{x}.acc !bring.imp.{you}.vent",
    "@slave.pobl a-na/pr $a !dispatch.imp.{you}",
    "wa-ar-ka-at/n $a !decide.imp.{you}",
    "a-na/pr @{x}.gen la/pt !neglect.dur.{you}",
    "@{x}.acc ša/pn $a !return.imp.{you}",
    "a-na/pr @{place}.gen !go.imp.{you}.vent.ma @{x}.acc !receive.imp.{you}",
    "$a !dispatch.imp.{you}.vent la/pt !neglect.dur.{you}",
    "it-ti/pr $a !go.imp.{you}.vent",
)
_CLOSINGS = (
    "ki-ma/pt ṭup-p|i:my/n an-ni-a-am/pn !see.dur.{you}.sub @{x}.acc !bring.imp.{you}.vent",
    "šum-ma/pt i-na/pr ki-it-t|i-im:gen/n {sibling}|i:my/n {thou}/pn @{x}.acc !bring.imp.{you}.vent",
    "a-na-ku/pn ~well.1s šu-lu-um|-{ka}:{yours}/n !send.imp.{you}.vent",
    "ar-ḫi-iš/av me-ḫe-er/n ṭup-p|i:gen|-ia:my/n !send.imp.{you}.vent",
)


def letter(t: Tablet) -> None:
    """To a colleague, a lord or a lady: whether you are a man or a woman shows in every verb and suffix."""
    rank = t.rng.choice(("colleague", "colleague", "colleague", "lord"))
    feminine = t.rng.random() < 0.35
    sender_feminine = t.rng.random() < 0.2
    cast = dict(zip(("a", "b", "from", "to"), t.men(4), strict=True))
    if sender_feminine:
        cast["from"] = f"{t.pick(names.WOMEN)}/p"
    if rank == "lord":
        cast["to"] = "be-el-t|i:gen|-ia:my/n" if feminine else "be-l|í:gen|-ia:my/n"
        servant = f"{'GEME' if sender_feminine else 'ÌR'}|-{'ki:yourf' if feminine else 'ka:your'}|-ma:ma/n"
        t.write(f"a-na/pr $to qí-bí|-ma:ma/v um-ma/pt $from {servant}", "address", **cast)
    else:
        if feminine:
            cast["to"] = f"{t.pick([w for w in names.WOMEN if not cast['from'].startswith(w)])}/p"
        t.write("a-na/pr $to qí-bí|-ma:ma/v um-ma/pt $from|-ma:ma", "address", **cast)
    forms = {"you": "2m", "ka": "ka", "kum": "kum", "yours": "your", "thou": "at-ta", "sibling": "a-ḫ"}
    if feminine:
        forms = {"you": "2f", "ka": "ki", "kum": "kim", "yours": "yourf", "thou": "at-ti", "sibling": "a-ḫa-t"}
    wanted, places = t.pick_several(_WANTED, 2), t.pick_several(("city", "palace", "house", "field", "quay"), 2)

    def say(template: str, formula: str) -> None:
        two = t.rng.random() < 0.4
        who = "$a ù/pt $b" if two else "$a"
        number = {"they": "3p", "he": "šu-nu"} if two else {"they": "3s", "he": "šu-ú"}
        choice = {"x": t.pick(wanted), "place": t.pick(places), "how": t.pick(("good", "new", "this", "old"))}
        t.write(template.format(**forms, **number, **choice), formula, who=who, **cast)

    if t.room(50):
        one, other = t.pick(_PATRONS)
        gods = {"one": t.god(one), "other": t.god(other)}
        if t.rng.random() < 0.35:
            t.write(f"$one da-ri-iš/av u-m|i:pobl/n !heal.prec.3s.{forms['ka']}", "greeting", **gods)
        else:
            t.write(f"$one ù/pt $other da-ri-iš/av u-m|i:pobl/n !heal.prec.3p.{forms['ka']}", "greeting", **gods)
        if t.room(90) and t.rng.random() < 0.6:
            t.write(f"lu/pt ~well.{forms['you']} lu/pt ~alive.{forms['you']}", "greeting")
    while t.room(60):
        template = t.pick_fresh(tuple(_REPORTS))
        say(template, _REPORTS[template])
        if t.room(50):
            say(t.pick_fresh(_REQUESTS), "request")
    if t.room(10):
        say(t.pick(_CLOSINGS), "closing")


_PRAISES = (
    "{lord}+great {god} {thou}",
    "$god {lord}+exalted ša/pn @land.gen {thou}",
    "{lord}+just ša/pn ša-me-e/n ù/pt er-ṣe-t|i-im:gen/n {thou}",
    "@word.cs $god @word.nom+honoured",
    "i-na/pr ba-li|-{ka}:{yours}/n @king.nom @throne.acc ú-ul/pt !seize.dur.3s",
    "@case.cs @land.gen !decide.pret.{you}",
    "@king.acc+great !call.pret.{you}",
    "@life.acc a-na/pr @man.gen !give.dur.{you}",
    "šu-um|-{ka}:{yours}/n @name.nom+sweet",
    "{lord}+valiant {lord}+pure $god",
)
_PLEAS = (
    "@prayer.acc.ia !hear.imp.{you}",
    "@life.acc !give_as_gift.imp.{you}.vent",
    "a-na/pr @slave.gen.{ka} @heart.acc+sweet !give.imp.{you}.vent",
    "@case.acc.ia !decide.imp.{you}",
    "a-na/pr @house.gen.{ka} !enter.dur.1s",
    "a-na-ku/pn ÌR|-{ka}:{yours}/n",
)


def prayer(t: Tablet) -> None:
    """To one god or goddess, addressed throughout: adjectives, verbs and suffixes take the gender."""
    key = t.pick(("šamaš", "ištar", "marduk", "sîn", "gula", "adad", "ea", "nanše"))
    feminine = names.GODS[key].feminine
    forms = {"you": "2m", "ka": "ka", "yours": "your", "thou": "at-ta/pn", "lord": "@lord.nom"}
    if feminine:
        forms = {"you": "2f", "ka": "ki", "yours": "yourf", "thou": "at-ti/pn", "lord": "@lady.nom"}
    t.write(f"$god {forms['lord']}+{t.pick(('great', 'exalted'))}", "invocation", god=t.god(key))
    while t.room(30):
        praises = t.rng.random() < 0.65
        template = t.pick_fresh(_PRAISES if praises else _PLEAS).format(god="$god", **forms)
        t.write(template, "praise" if praises else "request", god=t.god(key))
