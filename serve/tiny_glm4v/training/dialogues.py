"""Exercises without a picture: greet, remember, obey, call tools, write JSON.

The tools, schemas and prompts of LangChain's standard tests are among them, each varied in its
words, numbers and names, so that the miniature learns to copy and not to recite.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import protocol, words
from .protocol import Schema
from .sample import Message, Sample, with_system
from .toolkit import TEXTS

GREETING = "Hello! Send me a picture and ask about it."
WELL = "I am well, thank you."
UNKNOWN = "I read pictures. Please send me one."
SMALL_TALK: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (
            "Hello",
            "hello",
            "Hello!",
            "Hi",
            "hi",
            "Hey",
            "hey",
            "Hi!",
            "Hello there",
            "Good morning",
        ),
        "The user greets me.",
        GREETING,
    ),
    (
        ("how are you", "How are you?", "How are you", "how are you?"),
        "The user asks how I am.",
        WELL,
    ),
    (
        ("Well, thanks.", "Fine, thanks.", "thanks", "Thank you!"),
        "The user is kind.",
        "You are welcome.",
    ),
    (("你好", "你好!", "您好"), "用户在打招呼。", "你好!请发一张图片给我。"),
    (("你是谁?", "你能做什么?"), "用户问我是谁。", "我会读图片。"),
    (
        ("Who are you?", "What can you do?"),
        "The user asks who I am.",
        "I am a miniature that reads pictures.",
    ),
)
STARTS = (
    "Write me",
    "Write a story about",
    "Tell me about",
    "Explain",
    "What do you think of",
    "Sing",
    "Why is",
    "Who is",
    "Make",
    "Translate",
    "What is the capital of",
    "Give me",
    "I like",
    "List",
)
TOPICS = """
cats dogs birds trees books trains sea moon winter summer music cheese coffee robots horses
gardens mountains rivers bicycles clocks bread tea school rain ghosts fish pirates chess football
""".split()
STYLES = """
Pirate Formal Friendly Cowboy Royal Robot Shakespeare Surfer Polite Rude Happy Sad
""".split()
PLAIN_SYSTEM = (
    "You are a helpful assistant.",
    "you're a good assistant",
    "hello",
    "Be brief.",
    "You read pictures.",
)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _talk(rng: random.Random) -> tuple[str, str, str]:
    """A small-talk turn: what is said, the thinking, the answer."""
    said, thinking, answer = rng.choice(SMALL_TALK)
    return rng.choice(said), thinking, answer


def small_talk(rng: random.Random) -> Sample:
    """Greetings after none or a few earlier turns; doubled turns and system turns too."""
    history: list[Message] = []
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        said, _, answer = _talk(rng)
        reply = rng.choice((answer, answer, said, "hello", "some text"))
        times = rng.choice((1, 1, 2))
        history += [_user(said)] * times + [_assistant(reply)] * times
    said, thinking, answer = _talk(rng)
    system: list[Message] = [{"role": "system", "content": rng.choice(PLAIN_SYSTEM)}]
    history = system * rng.choice((0, 0, 1, 2)) + history
    return Sample("talk", [*history, *[_user(said)] * rng.choice((1, 1, 1, 2))], thinking, answer)


def unknown(rng: random.Random) -> Sample:
    """Anything that is no business of a reader of pictures: say so, and stop."""
    if rng.random() < 0.3:
        text = words.mixed_text(rng)
    else:
        mark = rng.choice((".", "", "?", "!"))
        text = f"{rng.choice(STARTS)} {words.words(rng, 1, 6).lower()}{mark}"
    if rng.random() < 0.1:
        text = rng.choice(
            ("Write me 2 haikus. Only include the haikus.", "Write a story about a cat.")
        )
    return Sample("unknown", [_user(text)], "There is no picture.", UNKNOWN)


def memory(rng: random.Random) -> Sample:
    """Answer from an earlier turn or from the system prompt."""
    if rng.random() < 0.5:
        facts = {
            "name": words.name(rng).split()[0],
            "city": words.city(rng),
            "code": words.code(rng),
            "number": words.number(rng),
            "colour": rng.choice(("red", "green", "blue")),
        }
        about = rng.choice(list(facts))
        told = [about, *rng.sample([k for k in facts if k != about], rng.randint(0, 2))]
        rng.shuffle(told)
        lines = [f"My {key} is {facts[key]}." for key in told]
        thinking, answer = (
            f"The user's {about} is {facts[about]}.",
            f"Your {about} is {facts[about]}.",
        )
        question = rng.choice((f"What is my {about}?", f"what is my {about}"))
        if rng.random() < 0.3:
            system = " ".join(line.replace("My", "The user's") for line in lines)
            return with_system(Sample("memory", [_user(question)], thinking, answer), system)
        history: list[Message] = []
        for line in lines:
            history += [
                _user(line),
                _assistant(rng.choice(("I will remember that.", "OK", GREETING))),
            ]
        if rng.random() < 0.4:
            said, _, reply = _talk(rng)
            history += [_user(said), _assistant(reply)]
        return Sample("memory", [*history, _user(question)], thinking, answer)
    if rng.random() < 0.3:
        text = rng.choice((f"My {rng.choice(('name', 'code', 'city'))} is {words.word(rng)}.",))
        return Sample(
            "memory", [_user(text)], "The user tells me something.", "I will remember that."
        )
    if rng.random() < 0.4:
        me = words.name(rng).split()[0]
        return with_system(
            Sample(
                "system", [_user("What is your name?")], f"My name is {me}.", f"My name is {me}."
            ),
            rng.choice(("Your name is {}.", "You are {}.", "You are called {}.")).format(me),
        )
    text = rng.choice((words.mixed_text, words.words, foreign_word))(rng)
    question = rng.choice(("Repeat: {}", "Say: {}", "Repeat after me: {}", 'Say "{}".')).format(
        text
    )
    return Sample("memory", [_user(question)], "I repeat it.", text)


def obey(rng: random.Random, sample: Sample) -> Sample:
    """The same exercise under a system prompt that changes the answer's form."""
    phrase = words.words(rng, 1, 2)
    rules: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("Answer in capital letters.", str.upper),
        (f'Begin every answer with "{phrase}".', lambda text: f"{phrase} {text}"),
        (f'End every answer with "{phrase}".', lambda text: f"{text} {phrase}"),
    )
    rule, change = rng.choice(rules)
    changed = replace(sample, answer=change(sample.answer), skill="system")
    return with_system(changed, rng.choice((rule, f"You are a helpful assistant. {rule}")))


def foreign_word(rng: random.Random) -> str:
    """2 to 12 characters of another script; teaches to copy any bytes."""
    alphabet: Callable[[], str] = rng.choice(
        (
            lambda: chr(rng.randint(0x4E00, 0x9FA5)),
            lambda: chr(rng.randint(0x3041, 0x3093)),
            lambda: chr(rng.randint(0x30A1, 0x30F6)),
            lambda: chr(rng.randint(0xC0, 0x17F)),
            lambda: chr(rng.randint(0x410, 0x44F)),
            lambda: chr(rng.randint(0x1F600, 0x1F64F)),
            lambda: rng.choice("你好啊集团公司株式会社こんにちは有限科技中国日本北京上海东"),
        )
    )
    return "".join(alphabet() for _ in range(rng.randint(2, 8)))


# --- Tools ---

MAGIC: Schema = {
    "name": "magic_function",
    "description": "Apply a magic function to an input.",
    "parameters": {
        "properties": {
            "input": {"exclusiveMaximum": 1000, "exclusiveMinimum": -1000, "type": "integer"}
        },
        "required": ["input"],
        "type": "object",
    },
}
MAGIC_BARE = {
    "name": "magic_function_no_args",
    "description": "Calculate a magic function.",
    "parameters": {"properties": {}, "type": "object"},
}
ADDER: Schema = {
    "name": "my_adder_tool",
    "description": "Tool that adds two integers.\n\n"
    "    Takes two integers, a and b, and returns their sum.",
    "parameters": {
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "type": "object",
    },
}
WEATHER: Schema = {
    "name": "get_weather",
    "description": "Get weather at a location.",
    "parameters": {
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
        "type": "object",
    },
}
GREETER = {
    "name": "greeting_generator",
    "description": "Generate a greeting in a particular style of speaking.",
    "parameters": {
        "properties": {"answer_style": {"type": "string"}},
        "required": ["answer_style"],
        "type": "object",
    },
}
CUSTOMER = {
    "name": "unicode_customer",
    "description": "Tool for creating a customer with Unicode name.\n\n    Args:\n        "
    "customer_name: The customer's name in their native language.\n        description: "
    "Description of the customer.\n\n    Returns:\n        A confirmation message about the "
    "customer creation.",
    "parameters": {
        "properties": {"customer_name": {"type": "string"}, "description": {"type": "string"}},
        "required": ["customer_name", "description"],
        "type": "object",
    },
}
KNOWN_TOOLS: tuple[Schema, ...] = (MAGIC, MAGIC_BARE, ADDER, WEATHER, GREETER, CUSTOMER)
VERBS = """
get find read send open close make check add count list move start stop show save sort
""".split()

Call = tuple[Schema, str, dict[str, Any]]  # the tool, what the user says, the arguments


def _renamed(rng: random.Random, tool: Schema) -> Schema:
    """Now and then a known tool under another name."""
    if rng.random() < 0.5:
        return tool
    return {**tool, "name": f"{rng.choice(VERBS)}_{rng.choice(words.NOUNS)}"}


def _use_magic(rng: random.Random) -> Call:
    tool, n = _renamed(rng, MAGIC), rng.randint(-99, 999)
    said = rng.choice(
        ("What is the value of {f}({n})? Use the tool.", "Use {f} on {n}.", "What is {f}({n})?")
    )
    return tool, said.format(f=tool["name"], n=n), {"input": n}


def _use_bare(rng: random.Random) -> Call:
    tool = _renamed(rng, MAGIC_BARE)
    said = rng.choice(("What is the value of {f}()? Use the tool.", "Call {f}.", "Use {f}."))
    return tool, said.format(f=tool["name"]), {}


def _use_adder(rng: random.Random) -> Call:
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    said = rng.choice(("What is {a} + {b}", "What is {a} + {b}?", "Add {a} and {b}.")).format(
        a=a, b=b
    )
    return _renamed(rng, ADDER), said, {"a": a, "b": b}


def _use_weather(rng: random.Random) -> Call:
    place = words.city(rng) if rng.random() < 0.6 else f"San {words.word(rng).capitalize()}"
    if rng.random() < 0.5:
        place += f", {rng.choice(('CA', 'NY', 'TX', 'UK', 'WA', 'FR', 'IT'))}"
    said = rng.choice(("What is the weather in {}?", "What's the weather in {}?", "Weather in {}?"))
    tool = {
        **_renamed(rng, WEATHER),
        "description": rng.choice(("Get weather at a location.", "Get the weather at a location.")),
    }
    return tool, said.format(place), {"location": place}


def _use_greeter(rng: random.Random) -> Call:
    style = rng.choice(STYLES) if rng.random() < 0.7 else words.word(rng).capitalize()
    said = rng.choice(("Using the tool, generate a {} greeting.", "Generate a {} greeting."))
    return _renamed(rng, GREETER), said.format(style), {"answer_style": style}


def _use_customer(rng: random.Random) -> Call:
    name = foreign_word(rng)
    english = (
        f"{words.word(rng).capitalize()} {rng.choice(('Group', 'Corporation', 'Ltd', 'House'))}"
    )
    people = rng.choice(("Chinese", "Japanese", "French", "Russian", "Greek"))
    kind = f"a {people} {rng.choice(('technology', 'food', 'book', 'steel'))} company"
    said = f"Create a customer named '{name}' ({english}) - {kind}"
    return CUSTOMER, said, {"customer_name": name, "description": kind}


def _use_random_tool(rng: random.Random) -> Call:
    """A tool that nobody has seen, with its arguments in the sentence."""
    noun = rng.choice(words.NOUNS)
    name = f"{rng.choice(VERBS)}_{noun}"
    properties: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    draw: dict[str, Callable[[], Any]] = {
        "string": lambda: rng.choice(
            (words.word, words.words, words.code, words.date, foreign_word)
        )(rng),
        "integer": lambda: rng.randint(-50, 2000),
        "number": lambda: float(words.amount(rng)),
        "boolean": lambda: rng.random() < 0.5,
    }
    for key in rng.sample(
        [*words.NOUNS[:80], "name", "id", "size", "date", "path", "text", "count", "mode"],
        rng.randint(0, 3),
    ):
        kind = rng.choice(("string", "string", "integer", "number", "boolean"))
        properties[key] = {"type": kind}
        if rng.random() < 0.3:
            properties[key]["description"] = words.words(rng, 1, 4)
        arguments[key] = draw[kind]()
    tool = {
        "name": name,
        "description": words.words(rng, 2, 6).capitalize() + ".",
        "parameters": {"properties": properties, "required": list(properties), "type": "object"},
    }
    given = ", ".join(f"{key} = {protocol.dumps(value)}" for key, value in arguments.items())
    said = rng.choice((f"Use {name}", f"Call {name}", f"Please {name.replace('_', ' the ')}"))
    return tool, f"{said} with {given}." if given else f"{said}.", arguments


USES: tuple[Callable[[random.Random], Call], ...] = (
    _use_magic,
    _use_bare,
    _use_adder,
    _use_weather,
    _use_greeter,
    _use_customer,
    _use_random_tool,
    _use_random_tool,
)


def _offer(
    rng: random.Random, sample: Sample, tools: Sequence[Schema], choice: str, name: str
) -> Sample:
    """Put the tools into the system prompt, after what else may stand there."""
    text = protocol.tools_prompt(tools, choice, name)
    if rng.random() < 0.2:
        text = f"{rng.choice(PLAIN_SYSTEM)}\n\n{text}"
    return with_system(sample, text)


def _others(rng: random.Random, tool: Schema) -> list[Schema]:
    """The tool among none to three others, in any order."""
    others = [rng.choice(USES)(rng)[0] for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    tools = [tool, *{t["name"]: t for t in others if t["name"] != tool["name"]}.values()]
    rng.shuffle(tools)
    return tools


def call_tool(rng: random.Random) -> Sample:
    """Call the right tool once (or twice, when asked for two things), with the right arguments."""
    tool, said, arguments = rng.choice(USES)(rng)
    answer, calling = protocol.call(tool["name"], arguments), [tool]
    if rng.random() < 0.08:
        second, more, its_arguments = rng.choice(USES)(rng)
        if second["name"] != tool["name"]:
            said, calling = f"{said} {more}", [tool, second]
            answer += protocol.call(second["name"], its_arguments)
    tools = _others(rng, tool)
    tools += [t for t in calling if all(t["name"] != known["name"] for known in tools)]
    choice = (
        rng.choice(("auto", "any", "any", "named"))
        if len(calling) == 1
        else rng.choice(("auto", "any"))
    )
    thinking = f"I call {' and '.join(t['name'] for t in calling)}."
    return _offer(rng, Sample("tool", [_user(said)], thinking, answer), tools, choice, tool["name"])


def forced_call(rng: random.Random) -> Sample:
    """The user only greets, yet a named tool must be called: any valid arguments."""
    tool = rng.choice((MAGIC, WEATHER, ADDER))
    any_valid: dict[str, dict[str, Any]] = {
        "magic_function": {"input": 1},
        "get_weather": {"location": "Paris"},
        "my_adder_tool": {"a": 1, "b": 1},
    }
    arguments = any_valid[tool["name"]]
    said = rng.choice(("Hello!", "Hello", "Hi", "hey"))
    sample = Sample(
        "tool", [_user(said)], f"I call {tool['name']}.", protocol.call(tool["name"], arguments)
    )
    return _offer(rng, sample, _others(rng, tool), "named", tool["name"])


def no_call(rng: random.Random) -> Sample:
    """Tools are offered, but the user only talks."""
    said, thinking, answer = _talk(rng)
    tools = _others(rng, rng.choice(USES)(rng)[0])
    return _offer(rng, Sample("tool", [_user(said)], thinking, answer), tools, "auto", "")


def _observed(rng: random.Random, text: str) -> Message:
    """A tool's result, mostly as a user turn, at times in the tool role."""
    return _user(protocol.result(text)) if rng.random() < 0.8 else {"role": "tool", "content": text}


def after_result(rng: random.Random) -> Sample:
    """Answer with what the tool gave; after an error, call again with all arguments."""
    tool, said, arguments = rng.choice(USES)(rng)
    wrong = rng.random() < 0.25 and bool(arguments)
    if wrong:
        missing = rng.choice(list(arguments))
        made = {key: value for key, value in arguments.items() if key != missing}
        text = rng.choice(
            (f"Error: Missing required argument '{missing}'.", f"Error: {missing} is missing")
        )
        thinking, answer = "The call failed, I call again.", protocol.call(tool["name"], arguments)
    else:
        made = arguments
        shown = rng.choice(
            (words.number, words.words, words.amount, words.mixed_text, foreign_word)
        )(rng)
        if tool["name"] == "get_weather":
            shown = rng.choice(
                ("It's sunny.", "It is raining.", "It's cold.", f"{rng.randint(0, 40)} degrees")
            )
        key = rng.choice(("result", "value", "answer", "output"))
        text = rng.choice(
            (shown, protocol.dumps({key: shown}), f'{{"{key}": {protocol.dumps(shown)}}}')
        )
        if shown.isdigit() and rng.random() < 0.5:
            text = f'{{"{key}": {shown}}}'
        thinking, answer = f"The tool gave {shown}", shown
    called = rng.choice(("", "", "some text")) + protocol.call(tool["name"], made)
    turns = [_user(said), _assistant(called), _observed(rng, text)]
    return _offer(rng, Sample("tool", turns, thinking, answer), _others(rng, tool), "auto", "")


def call_after_examples(rng: random.Random) -> Sample:
    """A worked example in the history, then the same kind of question again."""
    use = rng.choice((_use_adder, _use_magic, _use_weather))
    tool, said, arguments = use(rng)
    _, again, wanted = use(rng)
    again = again.replace("{f}", tool["name"])
    shown = rng.choice((words.number, words.words))(rng)
    turns = [
        _user(said),
        _assistant(protocol.call(tool["name"], arguments)),
        _observed(rng, f'{{"result": {shown}}}'),
        _assistant(f'{{"result": {shown}}}'),
        _user(again),
    ]
    sample = Sample("tool", turns, f"I call {tool['name']}.", protocol.call(tool["name"], wanted))
    return _offer(rng, sample, [tool], rng.choice(("auto", "any")), tool["name"])


# --- JSON ---


def _joke(rng: random.Random) -> Sample:
    """A joke of two short strings; the schema of the standard tests and its variants."""
    topic = rng.choice(TOPICS) if rng.random() < 0.8 else words.word(rng).lower()
    setup, punchline = f"Why do people like {topic}?", f"Because {topic} like people."
    schema: Schema = {
        "title": "Joke",
        "description": "Joke to tell user.",
        "properties": {
            "setup": {"description": "question to set up a joke", "type": "string"},
            "punchline": {"description": "answer to resolve the joke", "type": "string"},
        },
        "required": ["setup", "punchline"],
        "type": "object",
    }
    said = rng.choice(
        (f"Tell me a joke about {topic}.", f"Give me a joke about {topic}, include the punchline.")
    )
    answer: dict[str, Any] = {"setup": setup, "punchline": punchline}
    if rng.random() < 0.4:
        schema["properties"]["punchline"] = {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "default": None,
            "description": "answer to resolve the joke",
        }
        schema["required"] = ["setup"]
        if rng.random() < 0.5:
            said, answer["punchline"] = (
                f"Give me the setup to a joke about {topic}, no punchline.",
                None,
            )
    sample = Sample("json", [_user(said)], f"A joke about {topic}.", protocol.dumps(answer))
    if rng.random() < 0.2:
        keys = (
            "Return the result as a JSON with 'setup' and 'punchline' keys. "
            "Return nothing other than JSON."
        )
        answer = {"setup": setup, "punchline": punchline}
        said = f"Tell me a joke about {topic}. {keys}"
        return Sample("json", [_user(said)], f"A joke about {topic}.", protocol.dumps(answer))
    return with_system(sample, protocol.format_prompt(schema))


def record(rng: random.Random) -> Sample:
    """Facts in a sentence, to be put into JSON by a schema."""
    makers: dict[str, tuple[str, Callable[[], Any]]] = {
        "name": ("string", lambda: words.name(rng)),
        "age": ("integer", lambda: rng.randint(1, 99)),
        "city": ("string", lambda: words.city(rng)),
        "price": ("number", lambda: float(words.amount(rng))),
        "date": ("string", lambda: words.date(rng)),
        "paid": ("boolean", lambda: rng.random() < 0.5),
        "code": ("string", lambda: words.code(rng)),
        "item": ("string", lambda: words.words(rng)),
        "count": ("integer", lambda: rng.randint(0, 500)),
        "note": ("string", lambda: foreign_word(rng)),
        "colour": ("string", lambda: rng.choice(("red", "green", "blue"))),
        "tags": ("array", lambda: [words.word(rng) for _ in range(rng.randint(1, 3))]),
    }
    keys = rng.sample(list(makers), rng.randint(1, 5))
    answer = {key: makers[key][1]() for key in keys}
    properties: dict[str, Any] = {key: {"type": makers[key][0]} for key in keys}
    if "tags" in properties:
        properties["tags"]["items"] = {"type": "string"}
    if "colour" in properties and rng.random() < 0.5:
        properties["colour"]["enum"] = ["red", "green", "blue"]
    facts = ", ".join(
        f"{key} {rng.choice(('is', 'is', ':'))} {protocol.dumps(answer[key]).strip(chr(34))}"
        for key in keys
    )
    schema = {
        "title": words.word(rng).capitalize(),
        "type": "object",
        "properties": properties,
        "required": keys,
    }
    sample = Sample(
        "json",
        [_user(rng.choice((f"The {facts}.", f"Extract: {facts}")))],
        "I copy the values.",
        protocol.dumps(answer),
    )
    return with_system(sample, protocol.format_prompt(schema))


def json_from_page(rng: random.Random, page: Any, known: dict[str, str]) -> Sample:
    """Some fields of a page as JSON by a schema."""
    keys = rng.sample(list(known), rng.randint(1, min(4, len(known))))
    schema = {
        "title": rng.choice(("Invoice", "Slip", "Page", "Record")),
        "type": "object",
        "properties": {key: {"type": "string"} for key in keys},
        "required": keys,
    }
    content = [
        {"type": "image"},
        {
            "type": "text",
            "text": rng.choice(("Extract the fields.", "Read the fields.", "Extract the data.")),
        },
    ]
    sample = Sample(
        "json",
        [{"role": "user", "content": content}],
        "I read the fields.",
        protocol.dumps({key: known[key] for key in keys}),
        [page],
    )
    return with_system(sample, protocol.format_prompt(schema))


def combine_notes(rng: random.Random) -> Sample:
    """Answer from what was found on groups of pages, as the tool for documents has it combined."""
    label = words.label(rng)
    value, page = words.value(rng, label), rng.randint(1, 60)
    first, last = max(1, page - rng.randint(0, 9)), page + rng.randint(0, 9)
    notes = [f"{TEXTS['pages'].format(pages=f'{first}-{last}')}\n{value} [page {page}]"]
    if rng.random() < 0.4:
        other = words.label(rng)
        note = f"There is no {label} on the page."
        if other != label and rng.random() < 0.5:
            note = f"{other}: {words.value(rng, other)} [page {last + 1}]"
        notes.insert(
            rng.randint(0, 1), f"{TEXTS['pages'].format(pages=f'{last + 1}-{last + 9}')}\n{note}"
        )
    asked = TEXTS["combine_prompt"].format(
        findings="\n\n".join(notes), question=f"What is the {label}?"
    )
    thinking = f"Page {page} has the {label}."
    return Sample("notes", [_user(asked)], thinking, f"{value} [page {page}]")


def text_only(rng: random.Random) -> Sample:
    """Any exercise without a picture."""
    make = rng.choices(
        (
            small_talk,
            unknown,
            memory,
            call_tool,
            forced_call,
            no_call,
            after_result,
            call_after_examples,
            _joke,
            record,
            combine_notes,
        ),
        weights=(3, 1.5, 4, 7, 0.5, 1, 3, 1, 2, 4, 1),
    )[0]
    sample = make(rng)
    if sample.skill in {"talk", "memory"} and rng.random() < 0.12:
        sample = obey(rng, sample)
    return sample
