"""All that the tools say, in each language: to agents, and to the model that sees.

Names of tools and of their arguments are identifiers, the same in every language. Errors of what
lies below the tools (files, network, checks of arguments) are in English.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from langchain_glm4v.grounding import LABEL_PROMPT, LOCATE_PROMPT

Language: TypeAlias = Literal["en", "zh"]
"""English, or Chinese as it is written in mainland China."""


# Compared by identity, so that it can be a key: mappings cannot.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolTexts:
    """Texts of a kind of tool in one language.

    Attributes:
        fields: Field of the tool -> its default.
        arguments: Argument -> its description, for models.
        defaults: Argument that may be left out -> what stands for it then.
    """

    fields: Mapping[str, str]
    arguments: Mapping[str, str]
    defaults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What tools write in one language beside the answers of the model; some have places to fill.

    Attributes:
        cut_off: Ends an answer that is not whole.
        no_answer: The error of a reply that has none; `cut_in_thought`, of one cut off before it.
        cut_in_thought: See `no_answer`; place `reason`.
        too_long: The error of a call that was stopped; places `tool`, `seconds`.
        server_slow: The error of a model's server that did not answer in time.
        server_busy: That of one that has too much to do.
        server_refuses: That of one that does not take a request.
        server_fails: That of one that fails otherwise, or is not there.
        wrong_arguments: The error of arguments that do not fit; place `wrong`.
        all_arguments: Stands for the name of an argument where several do not fit together.
        no_such_scheme: The error of what is no path and no URL; place `named`.
        no_local_files: The error of a path where none may be read; place `named`.
        is_picture: The error of a picture that another tool is for; place `named`.
        is_document: That of a document.
        is_video: That of a video.
        several_pages: The error of a TIFF with pages where one picture is wanted; places `named`,
            `count`.
        negative_pages: The error of pages counted from the end; places `named`, `pages`, `count`.
        all_unread: The error of pages of which none could be read; place `error`.
        unread: Stands for the text of a page that could not be read; place `error`.
        comma: Parts numbers of pages.
        pages: Stands above what some pages say; place `pages`.
        no_pages: Stands for numbers of pages where there are none.
        nothing: What the model is asked to write of pages that say nothing of a question.
        nothing_said: The answer where no page says anything.
        not_combined: Stands above what some pages say, where no answer could be made of it; place
            `error`.
        found: Stands above what was found in a picture; places `width`, `height`.
        not_found: Tells that nothing was; places `width`, `height`, `target`, `answer`.
        unlabelled: Stands for the label of a box that has none.
    """

    cut_off: str
    no_answer: str
    cut_in_thought: str
    too_long: str
    server_slow: str
    server_busy: str
    server_refuses: str
    server_fails: str
    wrong_arguments: str
    all_arguments: str
    no_such_scheme: str
    no_local_files: str
    is_picture: str
    is_document: str
    is_video: str
    several_pages: str
    negative_pages: str
    all_unread: str
    unread: str
    comma: str
    pages: str
    no_pages: str
    nothing: str
    nothing_said: str
    not_combined: str
    found: str
    not_found: str
    unlabelled: str


WORDS: Mapping[Language, Words] = {
    "en": Words(
        cut_off="\n\n(It was cut off here.)",
        no_answer="the model thought and stopped without an answer: ask for something simpler or "
        "smaller, one thing at a time",
        cut_in_thought="the model thought and was cut off ({reason}): ask for something simpler or "
        "smaller, one thing at a time",
        too_long="{tool} took more than {seconds:g} s and was stopped: ask about less at once, "
        "such as fewer pages, a shorter part or smaller pictures",
        server_slow="the model that sees did not answer in time: ask about less at once, or try "
        "again later",
        server_busy="the model that sees has too much to do: make fewer calls at once, or try "
        "again later",
        server_refuses="the model that sees did not take the request: ask about less at once, or "
        "about other media; if that fails too, tell the user",
        server_fails="the model that sees cannot be reached, or failed: try again once; if that "
        "fails too, tell the user",
        wrong_arguments="the arguments are wrong; call again with others: {wrong}",
        all_arguments="all",
        no_such_scheme="{named} is neither a path nor an http(s) URL: give one of these",
        no_local_files="{named} is a local file, and none may be read here: give an http(s) URL",
        is_picture="{named} is an image: use look_at_images or read_text",
        is_document="{named} is a document: use ask_document or read_text",
        is_video="{named} is a video: use watch_video",
        several_pages="{named} is a TIFF of {count} pages: give an image of the one that is "
        "meant, or use read_text or ask_document, which read pages",
        negative_pages="pages of {named} are counted from 1, and the last is page {count}: "
        "give {pages} as such numbers",
        all_unread="no page could be read: {error}",
        unread="(could not be read: {error})",
        comma=", ",
        pages="Pages {pages}:",
        no_pages="none",
        nothing="NOTHING",
        nothing_said="The pages say nothing of it.",
        not_combined="(This is what each group of pages says. No single answer was made of it: "
        "{error})",
        found="In the image of {width}x{height} pixels, as left, top, right, bottom:",
        not_found="Not found in the image of {width}x{height} pixels: {target}. The answer was: "
        "{answer}",
        unlabelled="found",
    ),
    "zh": Words(
        cut_off="\n\n（内容在此处被截断。）",
        no_answer="模型思考后没有给出回答：请把问题改得更简单、范围更小，一次只问一件事",
        cut_in_thought="模型在思考过程中被截断（{reason}）：请把问题改得更简单、范围更小，"
        "一次只问一件事",
        too_long="{tool} 的运行时间超过 {seconds:g} 秒，已被停止：请缩小单次询问的范围，"
        "例如减少页数、缩短片段或换用更小的图片",
        server_slow="视觉模型未能及时回答：请缩小单次询问的范围，或稍后重试",
        server_busy="视觉模型当前负载过高：请减少同时进行的调用，或稍后重试",
        server_refuses="视觉模型未接受该请求：请缩小单次询问的范围，或换用其他媒体；若仍失败，"
        "请告知用户",
        server_fails="视觉模型无法访问或发生故障：请重试一次；若仍失败，请告知用户",
        wrong_arguments="参数有误，请修改后重新调用：{wrong}",
        all_arguments="全部参数",
        no_such_scheme="{named} 既不是路径，也不是 http(s) URL：请提供其中一种",
        no_local_files="{named} 是本地文件，而此处不允许读取本地文件：请提供 http(s) URL",
        is_picture="{named} 是图片：请改为使用 look_at_images 或 read_text",
        is_document="{named} 是文档：请改为使用 ask_document 或 read_text",
        is_video="{named} 是视频：请改为使用 watch_video",
        several_pages="{named} 是含有 {count} 页的 TIFF：请提供其中一页的图片，"
        "或改用可以读取多页的 read_text 或 ask_document",
        negative_pages="{named} 的页码从 1 开始，最后一页是第 {count} 页："
        "请改用这样的页码表示 {pages}",
        all_unread="所有页面都无法读取：{error}",
        unread="（无法读取：{error}）",
        comma="、",
        pages="第 {pages} 页：",
        no_pages="无",
        nothing="无相关内容",
        nothing_said="这些页面中没有相关内容。",
        not_combined="（以下是各组页面的内容，未能合并为一个回答：{error}）",
        found="在 {width}x{height} 像素的图片中，位置（左、上、右、下）如下：",
        not_found="在 {width}x{height} 像素的图片中未找到：{target}。模型的回答是：{answer}",
        unlabelled="目标",
    ),
}

IMAGE: Mapping[Language, ToolTexts] = {
    "en": ToolTexts(
        fields={
            "description": "Look at one or several images and answer a question about them: what "
            "they show, what is written in them, how many things there are, how they differ. Not "
            "for PDFs or videos.",
            "prompt": "{question}",
            "label": "Image {number}:",
        },
        arguments={
            "images": "Paths or http(s) URLs of the images, exactly as the user gave them. Give "
            "all that are to be compared in one call.",
            "question": "What to find out, in one clear sentence. Of several images, say which one "
            "is meant: the first, the second.",
        },
        defaults={"question": "Describe this image."},
    ),
    "zh": ToolTexts(
        fields={
            "description": "查看一张或多张图片并回答相关问题：图中有什么、写了什么、数量多少、"
            "彼此有何不同。不适用于 PDF 和视频。",
            "prompt": "{question}",
            "label": "图片 {number}：",
        },
        arguments={
            "images": "图片的路径或 http(s) URL，须与用户给出的完全一致。需要对比的图片应在一次"
            "调用中全部给出。",
            "question": "想了解的内容，用一句清楚的话表述。有多张图片时，说明指的是哪一张："
            "第一张、第二张。",
        },
        defaults={"question": "请描述这张图片。"},
    ),
}

VIDEO: Mapping[Language, ToolTexts] = {
    "en": ToolTexts(
        fields={
            "description": "Watch a video, or a part of it, and answer a question about it: what "
            "happens, when something appears, what is written. Answers name the seconds. It has no "
            "sound.",
            "prompt": "Watch the video and answer. Name the seconds.\n{question}",
            "watched": "(Watched second {first} to {last}, a frame every {step} s.)",
            "shifted": "(The seconds above count from second {start} of the video.)",
        },
        arguments={
            "video": "Path or http(s) URL of the video, exactly as the user gave it.",
            "question": "What to find out, in one clear sentence, such as: At which second does a "
            "dog appear?",
            "start": "Second at which to begin. Leave it out to watch from the start.",
            "end": "Second at which to end. Leave it out to watch to the end. A short part is seen "
            "in more detail.",
        },
        defaults={"question": "Describe this video."},
    ),
    "zh": ToolTexts(
        fields={
            "description": "观看整段视频或其中一段，并回答相关问题：发生了什么、某物何时出现、"
            "画面上写了什么。回答会注明秒数。听不到声音。",
            "prompt": "请观看视频并回答问题，注明对应的秒数。\n{question}",
            "watched": "（已观看第 {first} 秒至第 {last} 秒，每 {step} 秒一帧。）",
            "shifted": "（以上秒数从视频的第 {start} 秒起算。）",
        },
        arguments={
            "video": "视频的路径或 http(s) URL，须与用户给出的完全一致。",
            "question": "想了解的内容，用一句清楚的话表述，例如：狗在第几秒出现？",
            "start": "从第几秒开始看。不填则从头开始。",
            "end": "看到第几秒为止。不填则看到结尾。片段越短，看得越细。",
        },
        defaults={"question": "请描述这段视频。"},
    ),
}

# Arguments of all tools that read pages.
_PAGES: Mapping[Language, str] = {
    "en": 'pages to read, counted from 1, such as "1,3,5-7". Leave it out to read all.',
    "zh": '要读的页码，从 1 开始，如 "1,3,5-7"。不填则读取全部页面。',
}
_PASSWORD: Mapping[Language, str] = {
    "en": "Password of the document, only if the user gave one.",
    "zh": "文档的密码，仅在用户提供时填写。",
}

DOCUMENT: Mapping[Language, ToolTexts] = {
    "en": ToolTexts(
        fields={
            "description": "Answer a question from the pages of a document: PDF, PPTX, PPT, DOCX, "
            "DOC, ODT, ODP. Scans, tables, charts and pictures on the pages are seen. Answers cite "
            "pages as [page 3].",
            "prompt": "These are pages of a document. Answer the question from them alone, and "
            "cite the page of each fact, as in [page 3].\n\nQuestion: {question}",
            "find_prompt": "These are pages {pages} of a document with {count} pages. Write down "
            "all that they say that helps to answer the question, and cite the page of each fact, "
            f"as in [page 3]. If they say nothing of it, answer only: {WORDS['en'].nothing}\n\n"
            "Question: {question}",
            "combine_prompt": "These are notes that were taken from the pages of a document.\n\n"
            "{findings}\n\nAnswer the question from them alone, and cite the page of each fact, as "
            "in [page 3].\n\nQuestion: {question}",
            "page_label": "Page {page}:",
            "rests_on": "(Pages cited: {cited}. Pages read: {pages} of {count}.)",
        },
        arguments={
            "document": "Path or http(s) URL of the document, exactly as the user gave it.",
            "question": "What to find out, in one clear sentence that makes sense on its own.",
            "pages": f"Which {_PAGES['en']}",
            "password": _PASSWORD["en"],
        },
    ),
    "zh": ToolTexts(
        fields={
            "description": "根据文档（PDF、PPTX、PPT、DOCX、DOC、ODT、ODP）的页面内容回答问题，"
            "能看懂扫描件以及页面上的表格、图表和图片。回答会注明出处，如 [第3页]。",
            "prompt": "以上是一份文档的页面。请仅根据这些页面回答问题，并为每个事实注明所在的"
            "页码，如 [第3页]。\n\n问题：{question}",
            "find_prompt": "以上是一份文档的第 {pages} 页，该文档共 {count} 页。请写下其中所有有助"
            "于回答问题的内容，并为每个事实注明所在的页码，如 [第3页]。如果其中没有相关内容，"
            f"只回答：{WORDS['zh'].nothing}\n\n问题：{{question}}",
            "combine_prompt": "以下是从一份文档的各页中摘录的笔记。\n\n{findings}\n\n请仅根据这些"
            "笔记回答问题，并为每个事实注明所在的页码，如 [第3页]。\n\n问题：{question}",
            "page_label": "第 {page} 页：",
            "rests_on": "（引用的页码：{cited}。已读的页码：{pages}，共 {count} 页。）",
        },
        arguments={
            "document": "文档的路径或 http(s) URL，须与用户给出的完全一致。",
            "question": "想了解的内容，用一句清楚、脱离上下文也能看懂的话表述。",
            "pages": _PAGES["zh"],
            "password": _PASSWORD["zh"],
        },
    ),
}

LOCATE: Mapping[Language, ToolTexts] = {
    "en": ToolTexts(
        fields={
            "description": "Find where things are in an image. Returns a box for each in pixels: "
            "left, top, right, bottom, counted from the upper left corner.",
            "prompt": LOCATE_PROMPT,
            "label_prompt": LABEL_PROMPT,
        },
        arguments={
            "image": "Path or http(s) URL of the image, exactly as the user gave it.",
            "target": "What to find, such as: the red circle. Describe one thing so that no other "
            "is meant; separate several by commas.",
        },
    ),
    "zh": ToolTexts(
        fields={
            "description": "在图片中定位物体。为每个物体返回一个以像素为单位的边界框：左、上、右、"
            "下，以图片左上角为原点。",
            # The makers' own words (README_zh of zai-org/GLM-V).
            "prompt": "帮我在图像中找到 {target} 并给出它的边界框。",
            "label_prompt": "帮我在图像中找到 {target} 并给出它们的边界框，每个边界框附上标签，"
            '以 JSON 格式输出：[{{"label": "…", "bbox_2d": [x1,y1,x2,y2]}}, …]',
        },
        arguments={
            "image": "图片的路径或 http(s) URL，须与用户给出的完全一致。",
            "target": "要找的物体，例如：红色的圆。每个物体的描述都应足以与其他物体区分开；"
            "有多个时用逗号隔开。",
        },
    ),
}

READ: Mapping[Language, ToolTexts] = {
    "en": ToolTexts(
        fields={
            "description": "Read all text of an image or of the pages of a document (PDF, PPTX, "
            "DOCX …), scans and handwriting too. Returns Markdown, with tables as HTML. To answer "
            "one question about a long document, ask_document is shorter.",
            "prompt": "Convert this page to Markdown. Write tables as HTML.",
            "heading": "## Page {page}",
        },
        arguments={
            "source": "Path or http(s) URL of the image or document, exactly as the user gave it.",
            "pages": f"Of a document: which {_PAGES['en']}",
            "password": _PASSWORD["en"],
        },
    ),
    "zh": ToolTexts(
        fields={
            "description": "读取图片或文档（PDF、PPTX、DOCX 等）页面上的全部文字，包括扫描件和手写"
            "内容。返回 Markdown，表格为 HTML。如果只想就一份长文档问一个问题，用 ask_document "
            "更省篇幅。",
            "prompt": "请将这一页转换为 Markdown，表格用 HTML 表示。",
            "heading": "## 第 {page} 页",
        },
        arguments={
            "source": "图片或文档的路径或 http(s) URL，须与用户给出的完全一致。",
            "pages": f"仅用于文档：{_PAGES['zh']}",
            "password": _PASSWORD["zh"],
        },
    ),
}
