"""What is printed on the generated slips: words, names, labels and values, drawn at random."""

import random
import string
from collections.abc import Callable

NOUNS = """
apple anchor bag banana basket battery bell belt bicycle blanket board boat book bottle box bread
brick bridge brush bucket button cable cake camera candle card carpet carrot chair cheese clock
cloth coat coffee coin comb cotton cup curtain desk dish door drum egg engine fan feather fence
filter flag flour fork frame garden gate glass glove grape guitar hammer hat honey hook ice jacket
jam jar juice kettle key knife ladder lamp leaf lemon letter lock machine map marble match meat
melon milk mirror monitor motor mug nail needle net notebook nut oil olive onion orange oven paint
pan paper pasta peach pear pen pencil pepper phone piano pillow pin pipe pizza plate plum pocket
pot potato printer pump radio rail rice ring rope ruler salad salt sand saw scarf screen screw
seat shelf shell ship shirt shoe soap sock sofa soup spoon spring stamp steel stone stool stove
sugar switch table tape tea tent ticket tie tile tomato tool towel toy tray tree truck tube
umbrella vase violin wagon wall watch water wheel whistle window wire wood wool yarn zipper
""".split()
VERBS_AND_MORE = """
about after again all always and any are ask back before begin below best between big both bring
busy call can carry change check clean clear close cold come copy count daily dark day deep
deliver dry each early east easy end enter every fast few find first fix for free fresh from full
get give go good great green half hand hard have help here high hold home hot hour how in into
keep know large last late left less light like list little long look low main make many may meet
month more morning most move much near never new next night north not now of off often old on once
one only open order other our out over own page part pay place plain please press price put quick
quiet rain read ready red rest return right round run safe same save second see sell send set
short show sign slow small some soon south start stay stop store street strong sun take than the
their then these they thick thin this three time to today too top town train turn two under until
up use very wait walk want warm was way we week west wet when where which white who wide will wind
with work write year yellow yes you young your
""".split()
FIRST_NAMES = """
Ada Alan Alice Amir Anna Ben Bob Carla Chen Clara Daniel David Diana Elena Emil Emma Eva Felix
Grace Hana Henry Hugo Ida Igor Ines Iris Ivan Jack James Jane Jonas Julia Karl Kate Laura Leo Lena
Lucas Lucy Maria Mark Marta Max Mia Mila Nina Noah Nora Olga Oscar Otto Paul Pedro Peter Rita Rosa
Ruth Sam Sara Sofia Tara Theo Tom Vera Victor Yuki Zoe
""".split()
LAST_NAMES = """
Adams Baker Berg Brown Carter Clark Cohen Costa Cruz Davis Diaz Evans Fischer Fox Garcia Gray
Green Hall Hill Hoffman Hughes Ito James Jones Kato Kelly Khan Kim King Klein Kumar Lang Lee Lewis
Lopez Martin Meyer Miller Moore Nguyen Novak Olsen Park Patel Perez Price Quinn Reed Rossi Sato
Schmidt Silva Singh Smith Stone Tanaka Taylor Turner Walker Wang Weber White Wong Wood Wright
Young Zhang
""".split()
CITIES = """
Athens Austin Bergen Berlin Bern Bonn Boston Bristol Cairo Chicago Cork Dallas Denver Dublin
Geneva Genoa Ghent Hamburg Helsinki Kyoto Leeds Lima Lisbon London Lyon Madrid Miami Milan Munich
Nairobi Naples Nice Osaka Oslo Paris Porto Prague Quito Rome Seattle Seoul Sydney Tokyo Toronto
Turin Venice Vienna Warsaw York Zurich
""".split()
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def _digits(rng: random.Random, low: int, high: int) -> str:
    return "".join(rng.choices(string.digits, k=rng.randint(low, high)))


def amount(rng: random.Random) -> str:
    """A sum of money without its currency, such as `381.20`."""
    return f"{rng.randint(0, 10 ** rng.randint(1, 4))}.{rng.randint(0, 99):02d}"


def money(rng: random.Random) -> str:
    return rng.choice(("{}", "{}", "{}", "${}", "EUR {}", "{} EUR", "USD {}")).format(amount(rng))


def date(rng: random.Random) -> str:
    y, m, d = rng.randint(1980, 2035), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice(
        (f"{y}-{m:02d}-{d:02d}",) * 3
        + (f"{d:02d}.{m:02d}.{y}", f"{m:02d}/{d:02d}/{y}", f"{d} {MONTHS[m - 1]} {y}")
    )


def time(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"


def number(rng: random.Random) -> str:
    return _digits(rng, 1, 8)


def code(rng: random.Random) -> str:
    """An identifier such as `INV-48213`, `7KX3Q` or `AB/1204`."""
    letters = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(1, 4)))
    mixed = "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(4, 9)))
    return rng.choice(
        (
            f"{letters}-{_digits(rng, 3, 6)}",
            f"{letters}{_digits(rng, 2, 5)}",
            mixed,
            f"{letters}/{_digits(rng, 2, 4)}",
            f"#{_digits(rng, 3, 6)}",
        )
    )


def name(rng: random.Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def city(rng: random.Random) -> str:
    return rng.choice(CITIES)


def phone(rng: random.Random) -> str:
    return rng.choice((f"555-{_digits(rng, 4, 4)}", f"+{_digits(rng, 2, 2)} {_digits(rng, 6, 9)}"))


def percent(rng: random.Random) -> str:
    return f"{rng.randint(0, 100)}%"


def email(rng: random.Random) -> str:
    return (
        f"{rng.choice(FIRST_NAMES).lower()}@{rng.choice(NOUNS)}.{rng.choice(('com', 'org', 'net'))}"
    )


def pseudo_word(rng: random.Random) -> str:
    """A word that no list holds, so that reading cannot be guessing."""
    if rng.random() < 0.3:
        return "".join(rng.choices(string.ascii_letters, k=rng.randint(2, 8)))
    syllables = (
        rng.choice("bcdfghjklmnpqrstvwxz")
        + rng.choice("aeiouy")
        + rng.choice(("", "", "n", "r", "s", "l", "t"))
        for _ in range(rng.randint(1, 3))
    )
    return "".join(syllables)


def word(rng: random.Random) -> str:
    made = rng.choice((*NOUNS, *VERBS_AND_MORE)) if rng.random() < 0.6 else pseudo_word(rng)
    style = rng.random()
    return made.upper() if style < 0.08 else made.capitalize() if style < 0.35 else made


def words(rng: random.Random, low: int = 1, high: int = 3) -> str:
    return " ".join(word(rng) for _ in range(rng.randint(low, high)))


def mixed_text(rng: random.Random) -> str:
    """Free text with the odd number and mark in it."""
    parts = [
        rng.choice((word, word, word, word, number, code, amount))(rng)
        for _ in range(rng.randint(1, 5))
    ]
    text = " ".join(parts)
    mark = rng.random()
    if mark < 0.15:
        text += rng.choice(".!?;:")
    elif mark < 0.25:
        text = rng.choice(("({})", '"{}"', "* {}", "- {}", "[{}]", "{} & co")).format(text)
    elif mark < 0.32 and len(parts) > 1:
        text = text.replace(" ", rng.choice((", ", " - ", "/", "_", " + ", " = ")), 1)
    return text


Value = Callable[[random.Random], str]
# Label -> what may stand behind it.
FIELDS: dict[str, tuple[Value, ...]] = {
    "Account": (number, code),
    "Address": (words, city),
    "Amount": (money,),
    "Author": (name,),
    "Balance": (money,),
    "Bill to": (name,),
    "Birthday": (date,),
    "Cashier": (name,),
    "City": (city,),
    "Class": (code, number),
    "Code": (code,),
    "Colour": (word,),
    "Company": (words,),
    "Contact": (name,),
    "Country": (city, word),
    "Customer": (name,),
    "Date": (date,),
    "Delivery": (date, city),
    "Deposit": (money,),
    "Discount": (percent, money),
    "Driver": (name,),
    "Due": (date, money),
    "Due date": (date,),
    "Email": (email,),
    "Fee": (money,),
    "Flight": (code,),
    "From": (city, name),
    "Gate": (code, number),
    "Grade": (number, percent),
    "Guest": (name,),
    "Height": (number,),
    "ID": (code, number),
    "Invoice": (code, number),
    "Item": (words,),
    "Length": (number,),
    "Manager": (name,),
    "Model": (code, words),
    "Name": (name,),
    "Note": (words, mixed_text),
    "Number": (number,),
    "Order": (code, number),
    "Owner": (name,),
    "Page": (number,),
    "Paid": (money,),
    "Phone": (phone,),
    "Place": (city,),
    "Price": (money,),
    "Product": (words,),
    "Project": (words,),
    "Quantity": (number,),
    "Qty": (number,),
    "Rate": (percent, amount),
    "Ref": (code,),
    "Room": (number, code),
    "Score": (number, percent),
    "Seat": (code,),
    "Seller": (name,),
    "Serial": (code,),
    "Ship to": (name, city),
    "Size": (number, word),
    "Speed": (number,),
    "Status": (word,),
    "Street": (words,),
    "Subject": (words,),
    "Subtotal": (money,),
    "Table": (number,),
    "Tax": (money, percent),
    "Teacher": (name,),
    "Time": (time,),
    "Title": (words,),
    "To": (city, name),
    "Total": (money,),
    "Train": (code,),
    "Type": (word,),
    "VAT": (money, percent),
    "Vendor": (words, name),
    "Version": (amount,),
    "Weight": (number, amount),
    "Year": (number,),
    "Zone": (code, word),
}


def label(rng: random.Random) -> str:
    """A field's label; sometimes one that no list holds."""
    return rng.choice(tuple(FIELDS)) if rng.random() < 0.8 else pseudo_word(rng).capitalize()


def value(rng: random.Random, of: str) -> str:
    """What stands behind a label; at times anything, so that it must be read."""
    anything = (number, money, date, code, name, words)
    return rng.choice(FIELDS.get(of, anything) if rng.random() < 0.8 else anything)(rng)
