"""Every text of the page in English, Korean and Chinese; a browser shows those of its language."""

from __future__ import annotations

import html
from typing import Any

from ldm.util import UserError

LANGUAGES = ("en", "ko", "zh")
TABLE: dict[str, tuple[str, str, str]] = {
    # the frame
    "title": ("ldm", "ldm", "ldm"),
    "model": ("Model", "모델", "模型"),
    "generate": ("Generate", "생성", "生成"),
    "restyle": ("Restyle", "스타일 변환", "风格迁移"),
    "guide": ("Guide", "유도", "引导"),
    "look": ("Look inside", "들여다보기", "内部观察"),
    "personalise": ("Personalise", "개인화", "个性化"),
    "film": ("Film", "영상", "影片"),
    "gallery": ("Gallery", "갤러리", "图库"),
    "run": ("Make", "만들기", "开始生成"),
    "cancel": ("Cancel", "취소", "取消"),
    "results": ("Results", "결과", "结果"),
    "notes": ("How it was read", "해석", "解读"),
    "ready": ("Ready.", "준비되었습니다.", "就绪。"),
    "opening": ("Opening the model '{model}' …", "모델 '{model}' 여는 중 …", "正在打开模型“{model}” …"),
    "waiting": ("Waiting; {place} before you.", "대기 중, 앞에 {place}건.", "等待中，前面还有 {place} 个。"),
    "sampling": ("Step {step} of {steps}", "{steps}단계 중 {step}단계", "第 {step} 步，共 {steps} 步"),
    "inversion": (
        "Inverting: step {step} of {steps}",
        "역변환: {steps}단계 중 {step}",
        "反演：第 {step} 步，共 {steps} 步",
    ),
    "working": ("Working …", "작업 중 …", "处理中 …"),
    "left": ("{seconds} s left", "{seconds}초 남음", "剩余 {seconds} 秒"),
    "done": ("Done in {seconds} s.", "완료, {seconds}초.", "完成，用时 {seconds} 秒。"),
    "cancelled": ("Cancelled; what was finished stays.", "취소됨. 완성된 것은 남습니다.", "已取消，已完成的保留。"),
    "opened": ("'{model}' is in memory.", "'{model}' 준비됨.", "“{model}”已载入。"),
    # generate
    "prompt": ("Prompt", "프롬프트", "提示词"),
    "prompt_hint": (
        "What to draw, in English, Korean or Chinese",
        "무엇을 그릴까요? 한국어, 영어, 중국어",
        "要画什么：中文、英文或韩文",
    ),
    "negative": ("Negative prompt", "부정 프롬프트", "反向提示词"),
    "negative_hint": ("What to lead away from", "피하고 싶은 것", "不希望出现的内容"),
    "language": ("Language of the prompt", "프롬프트 언어", "提示词语言"),
    "auto": ("by its script", "글자로 판별", "按文字判断"),
    "sampler": ("Sampler", "샘플러", "采样器"),
    "steps": ("Steps", "단계 수", "步数"),
    "scale": ("Guidance", "가이던스", "引导强度"),
    "noise_scale": ("Start noise, times", "시작 노이즈 배율", "初始噪声倍数"),
    "settle": ("Settle on the mean over noises", "마무리 평균에 쓸 노이즈 수", "收尾取平均的噪声数"),
    "settle_hint": ("-1: as the model has it", "-1: 모델 기본값", "-1：模型默认"),
    "width": ("Width", "너비", "宽度"),
    "height": ("Height", "높이", "高度"),
    "size_hint": ("0: as the model was trained", "0: 모델 기본값", "0：模型默认"),
    "seed": ("Seed", "시드", "种子"),
    "seed_hint": ("-1 draws one", "-1: 무작위", "-1：随机"),
    "count": ("Pictures", "그림 수", "张数"),
    "more": ("Sampling, size", "샘플링, 크기", "采样与尺寸"),
    "additions": ("Words and LoRA", "학습한 단어와 LoRA", "已学词与 LoRA"),
    "words": ("Learned words", "학습한 단어", "已学词"),
    "lora": ("LoRA {number}", "LoRA {number}", "LoRA {number}"),
    "lora_scale": ("Strength of LoRA {number}", "LoRA {number} 강도", "LoRA {number} 强度"),
    "none": ("none", "없음", "无"),
    "usual": ("as usual", "기본값", "默认"),
    "from_picture": ("From a picture", "그림에서 시작", "从图片开始"),
    "picture": ("Picture; paint over what is to be new", "그림. 새로 그릴 곳을 칠하세요", "图片；涂抹要重画的部分"),
    "strength": ("How new (1: entirely)", "새로움 (1: 완전히)", "重绘幅度（1：全新）"),
    "settings_picture": (
        "A picture made here: its settings are read",
        "여기서 만든 그림: 설정을 읽습니다",
        "本程序生成的图片：读取其设置",
    ),
    "settings_read": ("The settings of the picture were read.", "그림의 설정을 읽었습니다.", "已读取图片的设置。"),
    "settings_none": ("This picture carries no settings.", "이 그림에는 설정이 없습니다.", "这张图片不含设置。"),
    # restyle
    "content": (
        "Photograph; paint a layer for each style, or nothing",
        "사진. 스타일마다 레이어를 칠하거나 비워 두세요",
        "照片；每种风格画一层，也可不画",
    ),
    "content_sample": ("Sample photograph", "예시 사진", "示例照片"),
    "propose": (
        "Grow the paint into what it is on",
        "칠한 물체 전체로 넓히기",
        "把涂抹扩展到整个物体",
    ),
    "styles": ("Styles at hand; click to choose", "스타일. 눌러서 고르세요", "可选风格，点击选择"),
    "styles_chosen": (
        "Chosen, in the order of the layers",
        "고른 스타일 (레이어 순서)",
        "已选风格（按图层顺序）",
    ),
    "styles_own": ("Bring your own", "내 그림 추가", "添加自己的图片"),
    "before_after": ("Before and after", "전과 후", "前后对比"),
    "gamma": ("γ: keep the photograph", "γ: 사진 유지", "γ：保留照片"),
    "temperature": ("T: sharpness", "T: 선명도", "T：锐度"),
    "detail": ("Detail", "세부", "细节"),
    "longest": ("Longer side", "긴 변", "长边"),
    "keep_colour": ("Colours of the photograph", "사진의 색 유지", "保留照片颜色"),
    # look inside
    "look_picture": (
        "Picture; click on a place",
        "그림. 한 곳을 누르세요",
        "图片；点击一处",
    ),
    "look_seen": ("What was seen", "본 것", "所见"),
    "look_sheet": ("All layers, some steps", "모든 층, 몇 단계", "所有层，部分步骤"),
    "look_run": ("Look", "보기", "查看"),
    "look_what": ("What to look at", "무엇을 볼까요", "看什么"),
    "look_place": ("where a place looks", "한 곳이 보는 곳", "某处在看哪里"),
    "look_word": ("where a word is seen", "단어가 보이는 곳", "词出现在哪里"),
    "look_feature": ("what a feature holds", "특징의 주성분", "特征的主成分"),
    "look_histogram": ("content against style", "내용과 스타일", "内容与风格"),
    "look_prompt": ("Prompt of the picture", "그림의 프롬프트", "图片的提示词"),
    "spot": ("Place (x,y)", "위치 (x,y)", "位置 (x,y)"),
    "word": ("Word", "단어", "词"),
    "feature": ("Feature", "특징", "特征"),
    "style": ("Style", "스타일", "风格"),
    "layer": ("Layer", "층", "层"),
    "step": ("Step (0: noisiest)", "단계 (0: 가장 잡음)", "步（0：噪声最大）"),
    "head": ("Head (-1: mean)", "헤드 (-1: 평균)", "注意力头（-1：平均）"),
    # guide
    "guide_boxes": ("Words in boxes", "상자 속 단어", "框中的词"),
    "guide_edit": ("Weights and edits", "가중치와 편집", "权重与编辑"),
    "boxes": ("Boxes as text", "상자 (글자로)", "框（文字）"),
    "boxes_hint": (
        "word: left top right bottom, as parts of the picture",
        "단어: 왼쪽 위 오른쪽 아래 (0–1)",
        "词：左 上 右 下（0–1）",
    ),
    "layout": ("How boxes place things", "상자에 두는 방법", "框如何放置物体"),
    "layout_hint": (
        "regions: each box by a prompt of its own; none chosen: as the model has it",
        "regions: 상자마다 자기 프롬프트; 고르지 않으면 모델의 방식",
        "regions：每个框有自己的提示词；不选则按模型",
    ),
    "excite": ("Words that must be there", "꼭 있어야 할 단어", "必须出现的词"),
    "excite_hint": ("parted by commas", "쉼표로 구분", "用逗号分隔"),
    "prompt_first": ("Prompt", "프롬프트", "提示词"),
    "prompt_second": ("Second prompt", "두 번째 프롬프트", "第二个提示词"),
    "prompt_second_hint": (
        "The same picture is made for it as well",
        "같은 그림을 이 프롬프트로도 만듭니다",
        "同一图片按此再画一次",
    ),
    "weights": ("Weights of the words", "단어의 가중치", "词的权重"),
    "blend": ("Change only where these words are", "이 단어가 있는 곳만 바꾸기", "只改变这些词所在处"),
    "blend_hint": (
        "parted by commas; empty: everywhere",
        "쉼표로 구분, 비우면 전체",
        "用逗号分隔；留空为全图",
    ),
    "edit_photo": ("A photograph in place of a new picture", "새 그림 대신 사진", "用照片代替新图"),
    # personalise
    "learn_pictures": (
        "Pictures of what is to be learned",
        "배울 대상의 그림",
        "要学习的对象的图片",
    ),
    "learn_sample": ("Take the sample pictures", "예시 그림 사용", "使用示例图片"),
    "crop": ("What is learned of each", "각 그림에서 배울 부분", "每张图片要学的部分"),
    "crop_middle": ("its middle", "가운데", "中间"),
    "crop_subject": ("around the thing", "물체 주위", "物体周围"),
    "crop_whole": ("all of it", "전체", "整张"),
    "learn_squares": (
        "As they are learned; click on one to learn only the thing in it (in colour)",
        "학습되는 모습. 누르면 그 속의 물체(색)만 배웁니다",
        "学习时的样子；点击一张则只学习其中的物体（着色）",
    ),
    "learn_find_all": ("Only the thing, in all of them", "모두에서 물체만", "全部只学物体"),
    "learn_whole": ("Learn all of each", "전체 배우기", "学习整张"),
    "captions": ("Captions, a line for each picture", "설명, 그림마다 한 줄", "说明，每张图片一行"),
    "captions_hint": (
        "* stands for the thing, | parts sentences; empty: the recipe's own sentences",
        "*: 배울 대상, |: 문장 구분. 비우면 레시피의 문장",
        "* 代表该对象，| 分隔句子；留空则用配方自带的句子",
    ),
    "method": ("How", "방법", "方法"),
    "learn_word": ("a word", "단어", "词"),
    "learn_lora": ("LoRA", "LoRA", "LoRA"),
    "learn_pivotal": ("word, then LoRA", "단어 다음 LoRA", "先词后 LoRA"),
    "learn_dreambooth": ("DreamBooth", "DreamBooth", "DreamBooth"),
    "learn_word_about": (
        "A new word for it, in a small file; the model stays as it is.",
        "새 단어 하나, 작은 파일. 모델은 그대로입니다.",
        "一个新词，一个小文件；模型不变。",
    ),
    "learn_lora_about": (
        "Small changes of the layers in a file of their own.",
        "층의 작은 변화를 별도 파일에 담습니다.",
        "各层的小改动，存为单独的文件。",
    ),
    "learn_pivotal_about": (
        "A word first, then a LoRA around it: two files.",
        "먼저 단어, 다음에 LoRA: 파일 두 개.",
        "先学词，再学 LoRA：两个文件。",
    ),
    "learn_dreambooth_about": (
        "The whole model learns, beside pictures of the class that it makes itself.",
        "모델 전체가 배우며, 같은 종류의 그림을 스스로 만들어 함께 봅니다.",
        "整个模型一起学习，并自行生成同类图片作对照。",
    ),
    "learn_count": ("{steps} steps.", "{steps}단계.", "{steps} 步。"),
    "learn_minutes": (
        "{steps} steps, about {minutes} min on two cores.",
        "{steps}단계, 코어 두 개로 약 {minutes}분.",
        "{steps} 步，双核约 {minutes} 分钟。",
    ),
    "learn_name": ("Name", "이름", "名称"),
    "learn_called": ("Called in prompts", "프롬프트 속 이름", "提示词中的叫法"),
    "learn_called_hint": ("empty: * or sks", "비우면 * 또는 sks", "留空：* 或 sks"),
    "learn_start": ("What it is one of", "무엇의 하나인가", "属于哪一类"),
    "learn_start_hint": (
        "a word that the model knows: star, dog",
        "모델이 아는 영어 단어: star, dog",
        "模型认识的英文词：star、dog",
    ),
    "learn_steps_hint": ("0: as the recipe says", "0: 레시피대로", "0：按配方"),
    "learn": ("Learn", "배우기", "开始学习"),
    "stop": ("Stop", "중지", "停止"),
    "loss": ("Loss", "손실", "损失"),
    "learn_previews": ("What it draws by now", "지금 그리는 것", "目前画出的样子"),
    "training": (
        "Learning: step {step} of {steps}",
        "학습: {steps}단계 중 {step}",
        "学习：第 {step} 步，共 {steps} 步",
    ),
    "learn_run": ("What was learned", "배운 것", "已学内容"),
    "learn_go_on": ("Go on", "이어서", "继续"),
    "learn_try": ("Try it", "시험하기", "试一试"),
    "learn_try_run": ("Draw", "그리기", "绘制"),
    "learn_format": ("As a file for", "파일 형식", "文件格式"),
    "learn_write": ("Make the file", "파일 만들기", "生成文件"),
    "learn_file": ("Download", "내려받기", "下载"),
    # film
    "film_sample": ("Sample picture", "예시 그림", "示例图片"),
    "film_first": ("Picture that the film begins with", "영상의 첫 그림", "影片的第一张图片"),
    "film_model": ("Model of films", "영상 모델", "影片模型"),
    "film_motion": ("Motion", "움직임", "运动"),
    "film_frames": ("Frames", "프레임 수", "帧数"),
    "film_fps": ("Frames a second", "초당 프레임", "每秒帧数"),
    "film_heading": ("It goes", "가는 방향", "移动方向"),
    "film_manner": ("And besides", "또한", "同时"),
    "by_chance": ("by chance", "무작위", "随机"),
    "manner_move": ("nothing", "그대로", "无变化"),
    "manner_turn": ("turns right", "오른쪽으로 돈다", "向右旋转"),
    "manner_turn-left": ("turns left", "왼쪽으로 돈다", "向左旋转"),
    "manner_grow": ("grows", "커진다", "变大"),
    "manner_shrink": ("shrinks", "작아진다", "变小"),
    "film_shown": ("Film", "영상", "影片"),
    "film_coming": ("Frames as they come", "만들어지는 프레임", "生成中的帧"),
    # what is missing, in the page's own words
    "learn_none": (
        "Pictures are missing: drop a few of what is to be learned.",
        "그림이 없습니다. 배울 대상의 그림을 몇 장 놓으세요.",
        "缺少图片：请放入几张要学习的对象的图片。",
    ),
    "learn_no_run": (
        "Choose something that was learned first.",
        "먼저 배운 것을 고르세요.",
        "请先选择已学内容。",
    ),
    "no_photograph": (
        "A photograph is missing: drop one, or choose a sample.",
        "사진이 없습니다. 놓거나 예시를 고르세요.",
        "缺少照片：请放入一张，或选择示例。",
    ),
    "no_style": (
        "A style is missing: click on one of the paintings, or bring your own.",
        "스타일이 없습니다. 그림을 누르거나 직접 추가하세요.",
        "缺少风格：请点击一幅画，或添加自己的图片。",
    ),
    "no_paint": (
        "Paint over the thing first: a few strokes will do.",
        "먼저 물체 위를 조금 칠하세요.",
        "请先在物体上涂几笔。",
    ),
    "no_picture": (
        "A picture is missing: drop one, or choose a sample.",
        "그림이 없습니다. 놓거나 예시를 고르세요.",
        "缺少图片：请放入一张，或选择示例。",
    ),
    "no_film_model": (
        "There is no model of films in 'models'.",
        "'models'에 영상 모델이 없습니다.",
        "“models”中没有影片模型。",
    ),
    "no_place": ("Click on a place of the picture.", "그림의 한 곳을 누르세요.", "请点击图片上的一处。"),
    "no_other_style": (
        "A style is missing to compare with.",
        "비교할 스타일이 없습니다.",
        "缺少用来比较的风格。",
    ),
    "no_box": (
        "Draw a box with its word, or name words that must be in the picture.",
        "단어의 상자를 그리거나 꼭 있어야 할 단어를 쓰세요.",
        "请画一个带词的框，或写出必须出现的词。",
    ),
    "no_edit": (
        "Write a second prompt, or move the slider of a word.",
        "두 번째 프롬프트를 쓰거나 단어의 슬라이더를 움직이세요.",
        "请写第二个提示词，或移动某个词的滑块。",
    ),
    # gallery
    "refresh": ("Refresh", "새로 고침", "刷新"),
    "parameters": ("Parameters", "매개변수", "参数"),
    "send_generate": ("Settings to Generate", "설정을 생성으로", "设置送到“生成”"),
    "send_picture": ("Picture to Generate", "그림을 생성으로", "图片送到“生成”"),
    "send_restyle": ("To Restyle", "스타일 변환으로", "送到“风格迁移”"),
    "send_guide": ("To Guide", "유도로", "送到“引导”"),
    "send_learn": ("To Personalise", "개인화로", "送到“个性化”"),
    "send_film": ("To Film", "영상으로", "送到“影片”"),
    "not_again": (
        "More than a prompt made this picture; its settings can be sent to Generate.",
        "이 그림은 프롬프트만으로 만든 것이 아닙니다. 설정을 생성으로 보낼 수 있습니다.",
        "这张图片不只由提示词生成；可以把设置送到“生成”。",
    ),
    "send_look": ("To Look inside", "들여다보기로", "送到“内部观察”"),
    "again": ("Make again", "다시 만들기", "重新生成"),
    "compare": ("Compare with", "비교 대상", "与之比较"),
    "compared": ("Compared", "비교", "比较"),
    "delete": ("To the bin", "휴지통으로", "移到回收站"),
    "deleted": ("'{name}' is in the bin: {place}", "'{name}' → 휴지통: {place}", "“{name}”已移到回收站：{place}"),
    "nothing_chosen": ("Choose a picture first.", "먼저 그림을 고르세요.", "请先选择一张图片。"),
    "picture_shown": ("Picture", "그림", "图片"),
    "empty": ("Nothing was made yet.", "아직 만든 것이 없습니다.", "还没有作品。"),
}


def languages_of(accepted: str) -> str:
    """The first of LANGUAGES that an Accept-Language header names, else English."""
    for part in accepted.lower().split(","):
        name = part.split(";")[0].strip()[:2]
        if name in LANGUAGES:
            return name
    return LANGUAGES[0]


def say(key: str, language: str = "en", **values: Any) -> str:
    """A text in a language, with its blanks filled."""
    return TABLE[key][LANGUAGES.index(language)].format(**values)


class PageError(UserError):
    """What is missing on the page itself: a sentence of the table, in the language of whoever asks."""

    def __init__(self, key: str) -> None:
        super().__init__(say(key))
        self.key = key


def sentence_of(error: UserError, language: str) -> str:
    """What went wrong, in a language where it is the page's own; the commands' sentences are in English."""
    return say(error.key, language) if isinstance(error, PageError) else str(error)


def escaped(text: Any) -> str:
    """A text that stands in HTML."""
    return html.escape(str(text))


def translations() -> dict[str, dict[str, str]]:
    """The table as a browser wants it: language -> key -> text."""
    found = {name: {key: row[index] for key, row in TABLE.items()} for index, name in enumerate(LANGUAGES)}
    return {**found, "zh-CN": found["zh"], "zh-TW": found["zh"]}
