"""The tools in Chinese: what agents and the model read, and that no text lacks its Chinese."""

import importlib
import re
import string
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from PIL import Image
from pydantic import SecretStr, ValidationError
from vision_server import Serve, serving, text_of

from langchain_glm4v import (
    ChatGLM4V,
    DocumentTool,
    GLM4VToolkit,
    ImageTool,
    LocateTool,
    ReadTool,
    VideoTool,
)
from langchain_glm4v.tools.base import VisionTool
from langchain_glm4v.tools.texts import WORDS, ToolTexts

pymupdf: Any = importlib.import_module("pymupdf")  # has no types

KINDS: list[type[VisionTool[Any]]] = [ImageTool, VideoTool, DocumentTool, LocateTool, ReadTool]
# Formats, units, tools, keys: they have no Chinese names.
NAMES = {
    *("PDF", "PPTX", "PPT", "DOCX", "DOC", "ODT", "ODP", "HTML", "Markdown", "JSON", "URL", "http"),
    *("ask_document", "read_text", "look_at_images", "watch_video"),
    *("TIFF", "s", "x", "label", "bbox_2d", "x1", "y1", "x2", "y2"),
}


def english_in(text: str) -> set[str]:
    """The words of a text that are no Chinese, places to fill apart."""
    return {*re.findall(r"[a-zA-Z]\w*", re.sub(r"\{[\w:]+\}", "", text), re.ASCII)} - NAMES


def is_chinese(text: str) -> bool:
    return bool(re.search(r"[\u4e00-\u9fff]", text)) and not english_in(text)


def places(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def answer(text: str) -> str:
    return f"<think>我看看。</think><answer>{text}</answer>"


def call(tool: BaseTool, **arguments: Any) -> ToolMessage:
    made = {"name": tool.name, "args": arguments, "id": "1", "type": "tool_call"}
    message = tool.invoke(made)
    assert isinstance(message, ToolMessage)
    return message


@pytest.fixture
def model() -> ChatGLM4V:
    """A model that is not asked."""
    return ChatGLM4V(base_url="http://127.0.0.1:9/v1", api_key=SecretStr("key"), model="glm")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (112, 84), "red").save(tmp_path / "1.png")
    return str(tmp_path / "1.png")


@pytest.fixture
def pages(tmp_path: Path) -> str:
    """A document of three pages."""
    with pymupdf.open() as made:
        for _ in range(3):
            made.new_page(width=100, height=100)
        made.save(tmp_path / "3.pdf")
    return str(tmp_path / "3.pdf")


# --- every text ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_has_every_text_in_both_languages(kind: type[VisionTool[Any]]) -> None:
    schema: Any = kind.model_fields["args_schema"].default
    own = {name for name in vars(kind)["__annotations__"] if kind.model_fields.get(name)}
    texts = {name for name in own if kind.model_fields[name].annotation is str} - {"name"}
    left_out = {name for name, one in schema.model_fields.items() if one.annotation is str} & {
        name for name, one in schema.model_fields.items() if not one.is_required()
    }
    for language in WORDS:
        told = kind._texts[language]
        assert {*told.fields} == texts
        assert {*told.arguments} == {*schema.model_fields}
        assert {*told.defaults} == left_out & {"question"}
        assert all([*told.fields.values(), *told.arguments.values(), *told.defaults.values()])


def all_of(texts: ToolTexts) -> dict[str, str]:
    groups = {"fields": texts.fields, "arguments": texts.arguments, "defaults": texts.defaults}
    return {f"{at}.{name}": text for at, group in groups.items() for name, text in group.items()}


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        *((all_of(kind._texts["en"]), all_of(kind._texts["zh"])) for kind in KINDS),
        (asdict(WORDS["en"]), asdict(WORDS["zh"])),
    ],
    ids=[*(kind.__name__ for kind in KINDS), "words"],
)
def test_texts_of_both_languages_have_the_same_places(
    english: dict[str, str], chinese: dict[str, str]
) -> None:
    assert {name: places(text) for name, text in chinese.items()} == {
        name: places(text) for name, text in english.items()
    }
    for name, text in chinese.items():
        has_words = bool(english_in(english[name]))
        assert is_chinese(text) == has_words, text


# --- what an agent's model sees ---


def test_schemas_are_chinese(model: ChatGLM4V) -> None:
    tools = GLM4VToolkit(llm=model, language="zh").get_tools()
    assert len(tools) == len(KINDS)
    for tool, other in zip(tools, GLM4VToolkit(llm=model).get_tools(), strict=True):
        told = convert_to_openai_tool(tool)["function"]
        english = convert_to_openai_tool(other)["function"]
        assert told["name"] == english["name"]
        assert is_chinese(told["description"])
        wanted = told["parameters"]["properties"]
        assert {*wanted} == {*english["parameters"]["properties"]}
        assert told["parameters"]["required"] == english["parameters"]["required"]
        for name, argument in wanted.items():
            assert is_chinese(argument.pop("description"))
            assert not english_in(str(argument.get("default") or ""))
            assert english["parameters"]["properties"][name].pop("description")
            argument.pop("default", None)
            english["parameters"]["properties"][name].pop("default", None)
        assert wanted == english["parameters"]["properties"]  # types and limits


def test_only_known_languages(model: ChatGLM4V) -> None:
    with pytest.raises(ValidationError, match="'en' or 'zh'"):
        GLM4VToolkit(llm=model, language="cn")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="'en' or 'zh'"):
        ImageTool(llm=model, language="cn")  # type: ignore[arg-type]


def test_what_is_given_stays(serve: Serve, picture: str, tmp_path: Path) -> None:
    class Terse(ImageTool):
        label: str = "#{number}"

    server = serve(lambda _: answer("是红色。"))
    tool = Terse(
        llm=server.model(),
        allowed_dirs=(tmp_path,),
        language="zh",
        prompt="{question} Answer in English.",
        description=ImageTool(llm=server.model()).description,
    )
    call(tool, images=[picture, picture], question="什么颜色?")
    assert server.prompts == ["#1<medium>#2<medium>什么颜色? Answer in English."]
    assert tool.description.startswith("Look at")
    assert tool.args["images"]["description"].startswith("图片")


# --- what the model is asked, and what comes back ---


def test_pictures(serve: Serve, picture: str, tmp_path: Path) -> None:
    server = serve(
        lambda _: {"message": {"content": answer("红色")[:-9]}, "finish_reason": "length"}
    )
    tool = ImageTool(llm=server.model(), allowed_dirs=(tmp_path,), language="zh")
    assert call(tool, images=[picture]).content == "红色\n\n（内容在此处被截断。）"
    call(tool, images=[picture, picture], question="哪张更红？")
    assert server.prompts == [
        "<medium>请描述这张图片。",
        "图片 1：<medium>图片 2：<medium>哪张更红？",
    ]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("狗在第1秒出现。", [[1, 1]]),
        ("第 1-2 秒是狗，3秒是猫", [[1, 2], [3, 3]]),
        ("从第1秒到第2秒，以及 0、3 秒", [[1, 2], [0, 0], [3, 3]]),
        ("0-1：跑步\n2～3：跳跃（2至3）", [[0, 1], [2, 3]]),
        ("0:01-0:02 是狗，猫在00:03出现", [[1, 2], [3, 3]]),
        ("0-3：20只狗", [[0, 3]]),
        ("一共有2只狗。", []),
    ],
)
def test_videos(serve: Serve, film: Path, said: str, seconds: list[list[float]]) -> None:
    server = serve(lambda _: answer(said))
    tool = VideoTool(llm=server.model(), allowed_dirs=(film.parent,), language="zh")
    message = call(tool, video=str(film))
    assert message.content == f"{said}\n（已观看第 0 秒至第 3.5 秒，每 0.5 秒一帧。）"
    assert message.artifact["seconds"] == seconds
    assert server.prompts == ["<medium>请观看视频并回答问题，注明对应的秒数。\n请描述这段视频。"]


def test_seconds_that_begin_anew(vllm: Any, film: Path) -> None:
    class Other:  # a server that is no vLLM takes no frames
        def __call__(self, question: Any) -> Any:
            return vllm(question) if question.path == "/v1/models" else None

    with serving(Other(), lambda _: answer("在第0秒。")) as server:
        tool = VideoTool(llm=server.model(), allowed_dirs=(film.parent,), language="zh")
        message = call(tool, video=str(film), start=2)
    assert "\n（以上秒数从视频的第 2 秒起算。）\n" in str(message.content)
    assert message.artifact["seconds"] == [[2, 2]]


@pytest.mark.parametrize(
    ("said", "cited", "told"),
    [
        ("是这样 [第3页]。", [3], "3"),
        ("是这样【第1页、第3页】。", [1, 3], "1、3"),
        ("是这样（第 1 至 2 页）。", [1, 2], "1-2"),
        ("是这样 [第1页到第3页]。", [1, 2, 3], "1-3"),
        ("是这样（第2页）。", [2], "2"),
        ("是这样（见第2页）。", [2], "2"),
        ("是这样 [第2页、第3页]。", [2, 3], "2-3"),
        ("是这样 [第2、3页]。", [2, 3], "2-3"),
        ("是这样（第3章，第2页）。", [2], "2"),
        ("是这样（第3章）。", [], "无"),
        ("都是。", [], "无"),
    ],
)
def test_pages_at_once(serve: Serve, pages: str, said: str, cited: list[int], told: str) -> None:
    server = serve(lambda _: answer(said))
    folder = Path(pages).parent
    tool = DocumentTool(llm=server.model(), allowed_dirs=(folder,), language="zh", longest_side=112)
    message = call(tool, document=pages, question="结论是什么？")
    assert message.content == f"{said}\n\n（引用的页码：{told}。已读的页码：1-3，共 3 页。）"
    assert message.artifact["cited"] == cited
    (prompt,) = server.prompts
    assert prompt.startswith("第 1 页：<medium>第 2 页：<medium>第 3 页：<medium>以上是")
    assert prompt.endswith("问题：结论是什么？")
    assert is_chinese(prompt.replace("<medium>", ""))


def test_a_long_document(serve: Serve, pages: str, tmp_path: Path) -> None:
    def say(body: Any) -> str:
        asked = text_of(body)
        assert is_chinese(asked.replace("<medium>", ""))
        if "笔记" in asked:
            return answer("合计 7 [第1页、第3页]。")
        page = int(asked.partition("第 ")[2].partition(" 页")[0])
        return answer(
            "“无相关内容”可供参考 [第2页]。" if page == 2 else f"有 {page} 个 [第{page}页]"
        )

    server = serve(say)
    tool = DocumentTool(
        llm=server.model(), allowed_dirs=(tmp_path,), language="zh", pages_at_once=1
    )
    message = call(tool, document=pages, question="一共多少个？")
    assert str(message.content).startswith("合计 7 [第1页、第3页]。\n\n（引用的页码：1、3。")
    notes = next(prompt for prompt in server.prompts if "笔记" in prompt)
    assert "第 1 页：\n有 1 个 [第1页]\n\n第 3 页：\n有 3 个 [第3页]\n\n请仅根据" in notes
    assert [finding["cited"] for finding in message.artifact["findings"]] == [[1], [], [3]]


def test_findings_that_cannot_be_combined(serve: Serve, pages: str, tmp_path: Path) -> None:
    server = serve(
        lambda body: answer("") if "笔记" in text_of(body) else answer(f"有 {text_of(body)[2]} 个")
    )
    tool = DocumentTool(
        llm=server.model(), allowed_dirs=(tmp_path,), language="zh", pages_at_once=1
    )
    told = str(call(tool, document=pages, question="一共多少个？").content)
    assert told.startswith("（以下是各组页面的内容，未能合并为一个回答：模型思考后没有给出回答")
    assert "第 1 页：\n有 1 个\n\n第 2 页：\n有 2 个\n\n第 3 页：\n有 3 个\n\n" in told


def test_pages_that_say_nothing(serve: Serve, pages: str, tmp_path: Path) -> None:
    tool = DocumentTool(
        llm=serve(lambda _: answer("**无相关内容。**")).model(),
        allowed_dirs=(tmp_path,),
        language="zh",
        pages_at_once=2,
    )
    told = call(tool, document=pages, question="?").content
    assert told == ("这些页面中没有相关内容。\n\n（引用的页码：无。已读的页码：1-3，共 3 页。）")


@pytest.mark.parametrize(
    ("target", "said", "told"),
    [
        ("红色的圆", "[[0,0,500,500]]", "1. 红色的圆: 0, 0, 56, 42"),
        ("圆，方块", "[[0,0,500,500]]", "1. 目标: 0, 0, 56, 42"),
        ("圆、方块", '[{"label": "圆", "bbox_2d": [0,0,500,500]}]', "1. 圆: 0, 0, 56, 42"),
    ],
)
def test_places(serve: Serve, picture: str, target: str, said: str, told: str) -> None:
    server = serve(lambda _: answer(said))
    tool = LocateTool(llm=server.model(), allowed_dirs=(Path(picture).parent,), language="zh")
    content = call(tool, image=picture, target=target).content
    assert content == f"在 112x84 像素的图片中，位置（左、上、右、下）如下：\n{told}"
    (prompt,) = server.prompts
    assert prompt.startswith(f"<medium>帮我在图像中找到 {target} 并给出")
    assert ("JSON" in prompt) == (target != "红色的圆")
    assert is_chinese(prompt.replace("<medium>", ""))


def test_what_is_not_there(serve: Serve, picture: str, tmp_path: Path) -> None:
    tool = LocateTool(
        llm=serve(lambda _: answer("没有。")).model(), allowed_dirs=(tmp_path,), language="zh"
    )
    told = call(tool, image=picture, target="狗").content
    assert told == "在 112x84 像素的图片中未找到：狗。模型的回答是：没有。"


def test_text_is_read(serve: Serve, pages: str, tmp_path: Path) -> None:
    server = serve(lambda _: answer("# 标题"))
    tool = ReadTool(llm=server.model(), allowed_dirs=(tmp_path,), language="zh")
    told = call(tool, source=pages, pages="1,3").content
    assert told == "## 第 1 页\n\n# 标题\n\n## 第 3 页\n\n# 标题"
    assert server.prompts == ["<medium>请将这一页转换为 Markdown，表格用 HTML 表示。"] * 2


def test_a_page_that_cannot_be_read(serve: Serve, tmp_path: Path) -> None:
    with pymupdf.open() as made:
        for width in (100, 10_000):  # no model takes the second
            made.new_page(width=width, height=20)
        made.save(tmp_path / "2.pdf")
    server = serve(lambda _: answer("文字"))
    shared: dict[str, Any] = {
        "llm": server.model(),
        "allowed_dirs": (tmp_path,),
        "language": "zh",
    }
    read = call(ReadTool(**shared), source=str(tmp_path / "2.pdf")).content
    assert "## 第 1 页\n\n文字\n\n## 第 2 页\n\n（无法读取：" in str(read)
    asking = DocumentTool(**shared, pages_at_once=1, combine=False)
    asked = call(asking, document=str(tmp_path / "2.pdf"), question="?").content
    assert str(asked).startswith("第 1 页：\n文字\n\n第 2 页：\n（无法读取：")
    both = call(ReadTool(**shared), source=str(tmp_path / "2.pdf"), pages="2,1").content
    assert "（无法读取：" in str(both)


# --- errors ---


def test_errors_of_the_tools_are_chinese(
    serve: Serve, picture: str, film: Path, tmp_path: Path
) -> None:
    texts = iter(["<think>嗯</think>", "<think>嗯"])
    reasons = iter(["stop", "length"])
    server = serve(lambda _: {"message": {"content": next(texts)}, "finish_reason": next(reasons)})
    allowed: Any = {"llm": server.model(), "language": "zh"}
    dirs = (tmp_path, film.parent)
    look = ImageTool(**allowed, allowed_dirs=dirs)
    read = ReadTool(**allowed, allowed_dirs=dirs)
    told = [
        call(look, images=[picture]),
        call(look, images=[picture]),
        call(ImageTool(**allowed), images=[picture]),
        call(look, images=["gopher://1"]),
        call(read, source=str(film)),
        call(look, images=[]),
    ]
    assert [message.status for message in told] == ["error"] * len(told)
    starts = ["模型思考后", "模型在思考过程中被截断（length）", "'", "'gopher", "'", "参数有误"]
    for message, start in zip(told, starts, strict=True):
        assert str(message.content).startswith(start)
        assert re.search(r"[\u4e00-\u9fff]{4}", str(message.content))
    assert "是视频：请改为使用 watch_video" in str(told[4].content)


def test_a_call_that_takes_too_long(serve: Serve, picture: str, tmp_path: Path) -> None:
    tool = ImageTool(
        llm=serve(lambda _: None).model(),
        allowed_dirs=(tmp_path,),
        language="zh",
        timeout=0.5,
    )
    told = call(tool, images=[picture]).content
    assert str(told).startswith("look_at_images 的运行时间超过 0.5 秒，已被停止：请")
