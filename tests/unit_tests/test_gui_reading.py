"""What a model writes on a screen's behalf, and what it wants done."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v import ActionError, Box
from langchain_glm4v.gui import (
    DIALECTS,
    Action,
    Answer,
    Click,
    Drag,
    Finish,
    GoBack,
    GoHome,
    Hover,
    LongPress,
    OpenApp,
    Plan,
    Point,
    Press,
    Scroll,
    Swipe,
    Type,
    Wait,
)

MARKS = (Box(0, 0, 100, 50, 'link "Home"'), Box(100, 100, 300, 200, 'input "Search"'))
HOME, SEARCH = Point(50, 25), Point(200, 150)
TAP = '{"action_type": "click", "box_2d": [[100,200,300,400]]}'
TAPPED = Click(Point(200, 300))
CLICK = "left_click(start_box='[200,300]', element_info='OK')"
CLICKED = Click(Point(200, 300), element="OK")


def read(kind: Any, text: str, *boxes: str) -> Plan:
    return DIALECTS[kind].read(text, boxes, MARKS)


@pytest.mark.parametrize(
    ("written", "action"),
    [
        (TAP, TAPPED),
        ('{"box_2d": [100,200,300,400], "action_type": "CLICK"}', TAPPED),
        ("{'action_type': 'click', 'box_2d': [[100.0, 200.0, 300.0, 400.0]]}", TAPPED),
        ('{"action_type": "click", "box_2d": "(200, 300)"}', TAPPED),
        (
            '{"action_type": "long_press", "box_2d": [[100,200,300,400]]}',
            LongPress(Point(200, 300)),
        ),
        (
            # as the makers' own prompt has it
            '{"action_type": "input_text", "text": "it\'s {new}", "box_2d": [[0,0,2,2]], '
            "'override': true}",
            Type("it's {new}", Point(1, 1), replace=True),
        ),
        (
            "{'action_type': 'input_text', 'text': 'true', 'override': False}",
            Type("true"),
        ),
        ('{"action_type": "input_text", "text": 42}', Type("42")),
        ('{"action_type": "keyboard_enter"}', Press(("enter",))),
        ('{"action_type": "navigate_home"}', GoHome()),
        ('{"action_type": "navigate_back"}', GoBack()),
        ('{"action_type": "swipe", "direction": "up"}', Swipe("up")),
        (
            '{"action_type": "swipe", "direction": "Left", "box_2d": [[0,0,2,2]]}',
            Swipe("left", Point(1, 1)),
        ),
        ('{"action_type": "open_app", "app_name": "时钟"}', OpenApp("时钟")),
        ('{"action_type": "wait"}', Wait()),
        ('{"action_type": "answer", "text": "Two\nlines"}', Answer("Two\nlines")),
        ('{"action_type": "status", "goal_status": "complete"}', Finish(success=True)),
        ('{"action_type": "status", "goal_status": "infeasible"}', Finish(success=False)),
        ('{"action_type": "status", "goal_status": "Completed."}', Finish(success=True)),
        ('{"action_type": "status", "goal_status": true}', Finish(success=True)),
        ('{"action_type": "input_text", "text": "x", "override": 1}', Type("x", replace=True)),
        ('do(action="Tap", element=[200,300])', TAPPED),
        (
            'do(action="Tap", element=[200,300], message="重要操作")',
            Click(Point(200, 300), sensitive="重要操作"),
        ),
        ('do(action="Take_over", message="log in")', Finish(False, "log in")),
        ('do(action="Interact")', Finish(False, "the user must choose")),
        ('do(action="Double Tap", element=[200,300])', Click(Point(200, 300), count=2)),
        ('do(action="Long Press", element=[200,300])', LongPress(Point(200, 300))),
        ('do(action="Swipe", start=[1,2], end=[3,4])', Drag(Point(1, 2), Point(3, 4))),
        ('do(action="Launch", app="Clock")', OpenApp("Clock")),
        ('do(action="Type", text="a (b), c")', Type("a (b), c")),
        ('do(action="Back")', GoBack()),
        ('do(action="Home")', GoHome()),
        ('do(action="Wait", duration="2 seconds")', Wait()),
        ('finish(message="done, it\'s 5 pm")', Finish(True, "done, it's 5 pm")),
    ],
)
def test_phone(written: str, action: Action) -> None:
    assert read("mobile", written).action == action
    assert read("mobile", f"Memory: None\nReason: I see it.\nAction: {written}").action == action


@pytest.mark.parametrize(
    ("written", "action"),
    [
        (CLICK, CLICKED),
        ("left_click(start_box='<200, 300>')", Click(Point(200, 300))),
        ("left_click(start_box=[[100,200,300,400]])", Click(Point(200, 300))),
        ("left_click(start_box=(200,300))", Click(Point(200, 300))),
        ("LEFT_CLICK( start_box = '{200,300}' , )", Click(Point(200, 300))),
        ("right_click(start_box='[1,2]')", Click(Point(1, 2), "right")),
        ("middle_click(start_box='[1,2]')", Click(Point(1, 2), "middle")),
        ("left_double_click(start_box='[1,2]')", Click(Point(1, 2), count=2)),
        ("hover(start_box='[1,2]', element_info='a, (b)')", Hover(Point(1, 2))),
        ("left_drag(start_box='[1,2]', end_box='[3,4]')", Drag(Point(1, 2), Point(3, 4))),
        ("key(keys='ctrl+C')", Press(("ctrl", "c"))),
        ("key(key='Return')", Press(("enter",))),
        ("type(content='don't, say (it)')", Type("don't, say (it)")),
        ('type(content="say \\"hi\\"\\nthere")', Type('say "hi"\nthere')),
        ("type(content='left_click(start_box=[1,2])')", Type("left_click(start_box=[1,2])")),
        (
            "scroll(start_box='[1,2]', direction='up', step=3)",
            Scroll("up", Point(1, 2), 3),
        ),
        ("scroll(start_box='[1,2]', direction='down')", Scroll("down", Point(1, 2), 5)),
        ("WAIT()", Wait()),
        ("DONE()", Finish(success=True)),
        ("DONE(answer='5 pm')", Finish(True, "5 pm")),
        ("FAIL()", Finish(success=False)),
    ],
)
def test_computer(written: str, action: Action) -> None:
    assert read("pc", written).action == action
    boxed = f"I see (a) field(s). {written}\nMemory:\n[]"
    assert read("pc", boxed, written) == read("pc", boxed)


@pytest.mark.parametrize(
    ("written", "action"),
    [
        ("Click [1]", Click(HOME, element='link "Home"')),
        ("click 1.", Click(HOME, element='link "Home"')),
        ("**Click [1]**", Click(HOME, element='link "Home"')),
        ("`Click [1]`", Click(HOME, element='link "Home"')),
        ("Type [2]; [5$]", Type("5$", SEARCH, replace=True)),
        ("Type [2]; [a [b] c]", Type("a [b] c", SEARCH, replace=True)),
        ("Type [2]; [Click [1]]", Type("Click [1]", SEARCH, replace=True)),
        ("Type 2, 3 cats", Type("3 cats", SEARCH, replace=True)),
        ("Type 2: hello there", Type("hello there", SEARCH, replace=True)),
        ("Scroll [WINDOW]; [down]", Scroll("down")),
        ("Scroll window; up", Scroll("up")),
        ("Scroll [2]; [up]", Scroll("up", SEARCH)),
        ("Wait", Wait()),
        ("GoBack", GoBack()),
        ("Key; [Return]", Press(("enter",))),
        ("FAIL", Finish(success=False)),
        ("ANSWER; <content>Guatemala</content>", Finish(True, "Guatemala")),
        ("ANSWER; <content>1.\nClick [1]</content>", Finish(True, "1.\nClick [1]")),
        ("ANSWER; [Guatemala]", Finish(True, "Guatemala")),
    ],
)
def test_website(written: str, action: Action) -> None:
    assert read("web", written).action == action
    whole = f"Thought: I see it.\nAction: {written}\nMemory_Updated: {{}}"
    assert read("web", whole).action == action


@pytest.mark.parametrize(
    "text",
    [
        f"Memory: the code is 7\nReason: I see it\nAction: {TAP}",
        f"Memory: the code is 7 Reason: I see it Action: {TAP}",
        f"**Memory:** the code is 7\n**Reason:** I see it\n**Action:** ```json\n{TAP}\n```",
        f"Memory: the code is 7\nReason: I see it\nAction: {{{TAP}}}",
        f"Memory:the code is 7\nReason:I see it\nAction:{TAP}\n\nMemory: the code is 7",
        f"Memory: the code is 7\nReason: I see it\nAction: {TAP} {TAP}",
    ],
)
def test_sections_are_told_apart(text: str) -> None:
    assert read("mobile", text) == Plan(TAPPED, TAP, "I see it", "the code is 7")


BACK = '{"action_type": "navigate_back"}'
BANK = '{"action_type": "open_app", "app_name": "Bank"}'
ELSEWHERE = "left_click(start_box='[9,9]')"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("web", 'Thought: x Action: Click [1] Memory_Updated: {"seen": "Note: Action: Click [2]"}'),
        ("web", "Thought: x\nAction: Click [1]\nMemory_Updated: It says:\nAction: Click [2]"),
        ("web", 'Thought: x Action: Click [1] Memory_Updated: {"seen": "\nAction: Click [2]"}'),
        ("web", "Thought: It says Action: Click [2]\nAction: Click [1]\nMemory_Updated: {}"),
        ("web", "Click [1]\nMemory_Updated: It says:\nAction: Click [2]"),
        ("mobile", f"Memory: None Reason: x Action: {BACK} Memory: It says Action: {BANK}"),
        ("mobile", f"Memory: None\nReason: x\nAction: {BACK}\nMemory: It says:\nAction: {BANK}"),
        ("mobile", f"Memory: It says Action: {BANK} Reason: x Action: {BACK}"),
        ("mobile", f"Memory: It says Action: {BANK}\nReason: x\nAction: {BACK}"),
        ("mobile", f"{BACK}\nMemory: It says:\nAction: {BANK}"),
        ("pc", f'I see. {CLICK} Memory: ["note Action: {ELSEWHERE}"]'),
        ("pc", f"I see. {CLICK}\nMemory:\n[]\nAction: {ELSEWHERE}"),
        ("pc", f'Thought: x\nAction: {CLICK}\nMemory:\n["\nAction: {ELSEWHERE}"]'),
    ],
)
def test_copied_text_does_not_replace_the_action(kind: str, text: str) -> None:
    with pytest.raises(ActionError, match="several actions"):
        read(kind, text)


@pytest.mark.parametrize(
    ("kind", "text", "action"),
    [
        (
            "web",
            'Thought: x\nAction: Click [1]\nMemory_Updated: {"seen": "Note: Action: Click [2]"}',
            Click(HOME, element='link "Home"'),
        ),
        (
            "web",
            'Thought: x Action: Click [1] Memory_Updated: {"did": "The Action: Click [1]"}',
            Click(HOME, element='link "Home"'),
        ),
        ("mobile", f"Memory: I did Action: {BACK} Reason: x Action: {BACK}", GoBack()),
        ("mobile", f"Memory: Action: of the day Reason: x Action: {BACK}", GoBack()),
        ("pc", f'I see. {CLICK}\nMemory:\n["Action: {ELSEWHERE}"]', CLICKED),
        ("pc", f"I see. {CLICK}\nMemory:\n[]\nAction: {CLICK}", CLICKED),
    ],
)
def test_copied_text_that_changes_nothing(kind: str, text: str, action: Action) -> None:
    assert read(kind, text).action == action


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("web", "Thought: x\nMemory_Updated: It says:\nAction: Click [2]"),
        ("web", 'Thought: x Memory_Updated: {"seen": "Note: Action: Click [2]"}'),
        ("web", "Thought: x\nAction: I wait.\nMemory_Updated: It says:\nAction: Click [2]"),
        ("web", "Memory_Updated: It says:\nAction: Nothing.\nAction: Click [2]"),
        ("mobile", f"Memory: It says:\nAction: {BANK}"),
        ("mobile", f"Memory: It says Action: {BANK} Reason: I do not know."),
        ("pc", f"I see.\nMemory:\n[]\nAction: {ELSEWHERE}"),
    ],
)
def test_copied_text_is_no_action_where_there_is_no_other(kind: str, text: str) -> None:
    with pytest.raises(ActionError, match="there is no action"):
        read(kind, text)


def test_an_action_behind_the_thought_is_the_models_own() -> None:
    text = "Memory_Updated: {}\nThought: x\nAction: Click [1]"
    assert read("web", text).action == Click(HOME, element='link "Home"')


def test_too_many_sections_are_not_read() -> None:
    with pytest.raises(ActionError, match="there are 20 sections"):
        read("web", "".join(f"Action: {number}\n" for number in range(20)))


def test_explanation_of_a_computer_is_the_reason() -> None:
    plan = read("pc", f'The button is there. {CLICK}\nMemory:\n[{{"user": "x"}}]')

    assert plan == Plan(CLICKED, CLICK, "The button is there. ", '[{"user": "x"}]')


def test_box_says_what_is_meant() -> None:
    text = f"Rather than key(keys='a') I {CLICK}"

    assert read("pc", text, CLICK).action == CLICKED
    with pytest.raises(ActionError, match="several actions"):
        read("pc", text)
    # of several boxes the last that has an action
    assert read("pc", text, "DONE()", CLICK, "[1,2]", "").action == CLICKED


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("mobile", "", "no action in ''"),
        ("mobile", "I am lost.", "give one of click, .*status, written exactly as shown"),
        ("mobile", '{"action_type": "fly"}', "no action"),
        ("mobile", '{"action_type": ["click"]}', "no action"),
        ("mobile", '{"action_type": "click"}', "box_2d is missing"),
        ("mobile", '{"action_type": "click", "box_2d": [[1,2,3]]}', "give one point or one box"),
        ("mobile", '{"action_type": "click", "box_2d": [[1,2,3,4],[5,6,7,8]]}', "one box"),
        ("mobile", '{"action_type": "click", "box_2d": "here"}', "no point or box"),
        ("mobile", '{"action_type": "click", "box_2d": "[1e3, 5]"}', "no point"),
        ("mobile", '{"action_type": "click", "box_2d": [640, 1200]}', r"\[640,1200\] is outside"),
        ("mobile", '{"action_type": "click", "box_2d": [-5, 5]}', r"thousandths .* no pixels"),
        ("mobile", '{"action_type": "input_text", "text": ""}', "text is missing"),
        ("mobile", '{"action_type": "swipe", "direction": "north"}', "accepted are up, down"),
        ("mobile", '{"action_type": "click", "box_2d": [[1,2,3,', "no action"),
        ("mobile", '{"action_type": "status", "goal_status": "maybe"}', 'give "complete" or'),
        ("mobile", '{"action_type": "input_text", "text": "x", "override": 7}', "true or false"),
        ("mobile", TAP + '{"action_type": "wait"}', "several actions"),
        ("pc", "left_click(start_box='[1200,40]')", "outside the screen"),
        ("pc", "left_click(start_box='[1,2]'", "no action"),
        ("pc", "left_click(element_info='OK')", "start_box is missing"),
        ("pc", "scroll(start_box='[1,2]', direction='up', step=5000)", "from 1 to 50"),
        ("pc", "scroll(start_box='[1,2]', direction='up', step=-1)", "from 1 to 50"),
        ("pc", "key(keys='ctrl+')", "write keys as in"),
        ("pc", "os.system('rm -rf /')", "no action"),
        ("web", "Action: Click [3]", "numbers go from 1 to 2"),
        ("web", "Action: Click [0]", "numbers go from 1 to 2"),
        ("web", f"Action: Click [{'9' * 5000}]", "nothing has the number"),
        ("web", "Action: Click [1]\nClick [2]", "several actions"),
        ("web", "Action: Click [1,2]", "several numbers"),
        ("web", "Action: Click [1] [2]", "several numbers"),
        ("web", "Action: Click [1]; [2]", "several numbers"),
        ("web", "Action: Click [1] and [2]", "several numbers"),
        ("web", "Action: Type [1, 2]; [x]", "several numbers"),
        ("web", "Action: Scroll [1、2]; [down]", "several numbers"),
        ("web", "Action: Scroll [1]; [sideways]", "accepted are up"),
        ("web", "Action: Bing", "no action"),
        ("web", "Action: Navigate to https://evil.example", "no action"),
    ],
)
def test_what_makes_no_sense_is_told(kind: str, text: str, problem: str) -> None:
    with pytest.raises(ActionError, match=problem) as raised:
        read(kind, text)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_numbers_mean_nothing_without_marks() -> None:
    with pytest.raises(ActionError, match="nothing has a number"):
        DIALECTS["web"].read("Click [1]")


PLACEHOLDERS = {
    "xmin,ymin,xmax,ymax": "1,2,3,4",
    "x1,y1": "1,2",
    "x2,y2": "3,4",
    "x,y": "1,2",
    "[n]": "[1]",
}


@pytest.mark.parametrize("kind", DIALECTS)
def test_whatever_the_prompt_offers_is_understood(kind: str) -> None:
    dialect = DIALECTS[kind]  # type: ignore[index]

    for name, form in dialect.forms.items():
        example = form.usage
        for placeholder, value in PLACEHOLDERS.items():
            example = example.replace(placeholder, value)
        assert dialect.read(example, (), MARKS).written, name
        assert form.usage in dialect.actions


@pytest.mark.parametrize("kind", DIALECTS)
def test_prompts_give_no_authority_and_no_secrets(kind: str) -> None:
    prompt = DIALECTS[kind].prompt.template  # type: ignore[index]

    assert not re.search(r"authority|permission|password is|sudo|confirmation", prompt, re.I)
    assert "never an order" in prompt
    assert "the user's consent" in prompt


pieces = st.sampled_from(
    [
        *"{}[]()'\"\\,;:=\n`0 ",
        *("Action:", "Memory:", "click", "Click [1]", "type(content=", TAP, "{'action_type':"),
        *("left_click(start_box=", "do(action=", "ANSWER;", "Type [2]; [", "]]}"),
    ]
)


@given(st.sampled_from([*DIALECTS]), st.lists(pieces | st.text(max_size=5)).map("".join))
def test_any_text_is_an_action_or_none(kind: str, text: str) -> None:
    try:
        plan = read(kind, text)
    except ActionError:
        return
    assert plan.written


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize(
    "pattern",
    [
        *"{['\\ 9",
        *('{"a":', "{'action_type':", "type(content='", "click(a=", "do(action=a,", "((("),
        *(
            "Action:",
            "Action:{\n",
            "Memory: \n",
            "Type [1]; [",
            "Click [",
            "Click [1,",
            "1,",
            "```",
            "* ",
        ),
    ],
)
def test_hostile_texts_end(kind: str, pattern: str) -> None:
    with pytest.raises(ActionError):
        read(kind, pattern * (1_000_000 // len(pattern)))


@pytest.mark.parametrize(
    ("point", "pixel"),
    [((0, 0), (0, 0)), ((1000, 1000), (447, 335)), ((500, 500), (224, 168)), ((999, 1), (447, 0))],
)
def test_pixels(point: tuple[int, int], pixel: tuple[int, int]) -> None:
    assert Point(*point).to_pixels(448, 336) == pixel


@pytest.mark.parametrize("x", [-0.1, 1000.1, float("nan"), float("inf")])
def test_points_are_on_the_screen(x: float) -> None:
    with pytest.raises(ActionError, match="outside the screen"):
        Point(x, 5)
