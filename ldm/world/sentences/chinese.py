"""Chinese, simplified and traditional: measure words, the background before or after the thing."""

from __future__ import annotations

from ldm.world.objects import objects
from ldm.world.scene import GROUNDS
from ldm.world.sentences.voice import Named, Voice, Wish, Words

TRADITIONAL = 0.3  # share of sentences in traditional characters

COLOURS: Words = {
    "red": ("红色的", "红", "红色", "大红色的"),
    "orange": ("橙色的", "橙色", "橘色的", "橘黄色的"),
    "yellow": ("黄色的", "黄", "黄色"),
    "green": ("绿色的", "绿", "绿色"),
    "cyan": ("青色的", "青色", "青绿色的"),
    "blue": ("蓝色的", "蓝", "蓝色"),
    "purple": ("紫色的", "紫", "紫色"),
    "pink": ("粉色的", "粉红色的", "粉色", "粉红"),
    "black": ("黑色的", "黑", "黑色"),
    "white": ("白色的", "白", "白色"),
    "brown": ("棕色的", "棕色", "褐色的", "咖啡色的"),
    "grey": ("灰色的", "灰", "灰色"),
}
NOUNS: Words = {
    "red": ("红色", "红"), "orange": ("橙色", "橘色"), "yellow": ("黄色", "黄"), "green": ("绿色", "绿"),
    "cyan": ("青色",), "blue": ("蓝色", "蓝"), "purple": ("紫色",), "pink": ("粉色", "粉红色"), "black": ("黑色", "黑"),
    "white": ("白色", "白"), "brown": ("棕色", "褐色"), "grey": ("灰色",),
}  # fmt: skip
SIZES: Words = {"small": ("小", "小小的", "小的", "很小的"), "large": ("大", "大大的", "大的", "巨大的")}
TEXTURES: Words = {
    "plain": ("纯色的", "无花纹的"),
    "striped": ("条纹", "带条纹的", "条纹状的"),
    "dotted": ("波点", "圆点", "带斑点的"),
    "checked": ("格子", "棋盘格"),
    "halved": ("双色", "两种颜色的"),
}
SHAPES: Words = {
    "circle": ("圆形", "圆"),
    "square": ("正方形", "方块"),
    "triangle": ("三角形",),
    "diamond": ("菱形",),
    "star": ("星星", "五角星", "星形"),
    "heart": ("爱心", "心形"),
    "cross": ("十字", "十字形"),
    "moon": ("月牙", "月亮", "弯月"),
    "pentagon": ("五边形",),
    "hexagon": ("六边形",),
    "ring": ("圆环", "环形"),
    "oval": ("椭圆", "椭圆形"),
    "rectangle": ("长方形", "矩形"),
    "arrow": ("箭头",),
}
MEASURES = {"star": "颗", "heart": "颗", "moon": "弯"}
FIGURES: Words = {
    "polygon": ("多边形", "有棱角的图形"),
    "rosette": ("花形图案", "花形"),
    "blob": ("圆滑的图形", "圆块"),
    "gear": ("齿轮",),
}
PLACES: Words = {
    "middle": ("中间", "中央", "正中间"),
    "left": ("左边", "左侧", "左面"),
    "right": ("右边", "右侧", "右面"),
    "top": ("上方", "上面", "顶部"),
    "bottom": ("下方", "下面", "底部"),
    "top left": ("左上角", "左上方"),
    "top right": ("右上角", "右上方"),
    "bottom left": ("左下角", "左下方"),
    "bottom right": ("右下角", "右下方"),
}
LANDSCAPES: Words = {
    "meadow": ("草地", "草坪", "草原", "绿色的田野"),
    "beach": ("海滩", "沙滩", "海边"),
    "night": ("夜空", "星空", "夜晚的天空"),
    "snow": ("雪地", "雪原"),
    "desert": ("沙漠", "大漠"),
    "sea": ("大海", "海面", "海洋", "蓝色的大海"),
}
ON_LANDSCAPES: Words = {
    "meadow": ("上", "里"), "beach": ("上",), "night": ("下", "中", "里"), "snow": ("里", "上"), "desert": ("里", "中"),
    "sea": ("上",),
}  # fmt: skip
NICE = ("可爱的", "漂亮的", "好看的", "简单的", "美丽的")
TAGS = ("高清", "4k", "高质量", "细节丰富", "简约风格", "矢量图", "扁平风格", "杰作")

# T: the thing with its measure word, B: without; W: where ('蓝色背景上'), G: the background ('蓝色背景'), N: what it is
# ('蓝色', '草地')
TEMPLATES = (
    "{W}的{B}", "{W}有{T}", "{W}，{T}", "在{W}的{B}", "在{W}有{T}", "{T}，{G}", "{B}，{G}", "{G}，{B}", "{G}，{T}",
    "画{T}，{G}", "请画{T}，{G}", "请帮我画{T}，{G}", "帮我画{T}，{G}", "给我画{T}，{G}", "我想要{T}，{G}",
    "我想看{T}，{G}", "在{W}画{T}", "请在{W}画{T}", "一张{W}有{T}的图片", "一幅{W}的{B}的画", "一张{B}的图片，{G}",
    "一幅{B}的插画，{G}", "一张{G}的{B}图片", "{T}在{W}", "{B}在{W}", "这是{T}，{G}", "这是{W}的{B}",
    "图中有{T}，{G}", "画面上有{T}，{G}", "{W}放着{T}", "{W}出现{T}", "{W}只有{T}", "{W}{B}", "有{T}的{G}",
    "以{N}为背景的{B}", "以{N}为背景，画{T}", "{N}为背景，{T}", "背景是{N}，{T}", "背景是{N}，有{T}",
    "背景为{N}的{B}", "背景是{N}的{B}", "{T}，背景是{N}", "{T}，背景为{N}", "{B}，背景{N}", "生成{T}，{G}",
    "生成一张{B}的图片，背景是{N}", "制作{T}的图像，{G}", "显示{T}，{G}", "看，{W}有{T}", "{B}（{G}）", "{B} {G}",
    "{G} {B}", "{B}-{G}", "{G}：{T}", "{G}前有{T}", "{G}前的{B}", "{G}前面的{B}", "{G}里的{B}",
    "能不能画{T}，{G}？", "可以画{T}吗？{G}", "画{T}，背景用{N}", "来{T}，{G}", "请给我{T}，{G}",
)  # fmt: skip
OPEN_TEMPLATES = (
    "{T}", "{B}", "画{T}", "请画{T}", "请帮我画{T}", "帮我画{T}", "一张{B}的图片", "一幅{B}的画", "{B}的图片",
    "我想要{T}", "有{T}", "这是{T}", "图中有{T}", "生成{T}", "给我看{T}", "{B}的插画", "能画{T}吗？", "来{T}",
)  # fmt: skip
BESIDE = ("{A}和{Z}", "{A}与{Z}", "并排的{A}和{Z}", "{A}旁边有{Z}", "{A}跟{Z}")
RELATIONS: Words = {
    "left of": ("{Z}左边的{A}", "左边是{A}，右边是{Z}", "左边的{A}和右边的{Z}", "{A}右边的{Z}", "{A}在{Z}左边"),
    "above": ("{Z}上方的{A}", "上面是{A}，下面是{Z}", "上面的{A}和下面的{Z}", "{A}下方的{Z}", "{A}在{Z}上面"),
}
# what differs in traditional characters, of all that these sentences can hold: each with its counterpart
_PAIRS = (
    "与與两兩个個丰豐为為丽麗乌烏书書从從伞傘侧側兰蘭凤鳳制製动動单單卜蔔双雙变變叶葉号號吗嗎团團图圖圆圓块塊头頭奖獎带帶帐帳帮幫"
    "并並张張弯彎显顯机機来來杰傑枫楓柠檸树樹棱稜椭橢樱櫻气氣汉漢滩灘渐漸灯燈灵靈点點热熱烛燭爱愛状狀猪豬猫貓环環现現电電画畫盘盤"
    "礼禮种種笔筆简簡篮籃红紅约約纯純纸紙细細给給绵綿绿綠脑腦节節苹蘋萝蘿萨薩蓝藍虫蟲蜗蝸蜡蠟记記话話请請货貨质質车車轮輪辆輛边邊"
    "运運这這连連郁鬱里裡钟鐘钥鑰铃鈴铅鉛铛鐺锤錘镜鏡长長门門间間闹鬧阳陽颈頸颗顆颜顏顶頂风風飞飛饼餅马馬驼駝骆駱鱼魚鲨鯊鲸鯨鳄鱷"
    "条條纹紋鸟鳥鸡雞鸭鴨鹅鵝鹉鵡鹦鸚鹰鷹黄黃齿齒龟龜干乾"
)
_TRADITIONAL = str.maketrans(_PAIRS[::2], _PAIRS[1::2])
_PHRASES = {"面包": "麵包", "一只": "一隻"}  # characters that differ in some words only


def traditional(text: str) -> str:
    """A sentence of these in traditional characters."""
    for simplified, other in _PHRASES.items():
        text = text.replace(simplified, other)
    return text.translate(_TRADITIONAL)


def sentence(wish: Wish, voice: Voice) -> str:
    """A sentence that says all of a wish and nothing else."""
    bare = [noun(named, voice) for named in wish.named]
    whole = [f"一{measure(named)}{phrase}" for named, phrase in zip(wish.named, bare, strict=True)]
    if len(bare) == 2:
        way = voice.pick(BESIDE if wish.aside else RELATIONS[str(wish.relation)])
        parts = whole if voice.rng is None or voice.chance(0.6) else bare
        whole = bare = [way.format(A=parts[0], Z=parts[1])]
    thing, named = whole[0], bare[0]
    place = wish.named[0].thing.place if len(wish.named) == 1 else None
    said = voice.pick(PLACES[place]) if place else ""
    if said and not voice.chance(0.3):
        thing, named, said = f"{said}的{thing}", f"{said}的{named}", ""
    template = voice.pick(OPEN_TEMPLATES if wish.ground is None else TEMPLATES)
    text = template.format_map({"T": thing, "B": named, **_ground_fields(wish.ground, voice)})
    if said:
        text = f"{said}，{text}" if voice.chance(0.4) else f"{text.rstrip('？')}，在{said}"
    return text


def _ground_fields(ground: str | None, voice: Voice) -> dict[str, str]:
    if ground is None:
        return {}
    about = GROUNDS[ground]
    if ground in LANDSCAPES:
        name = voice.pick(LANDSCAPES[ground])
        before = f"{name}背景" if voice.chance(0.4) else name
        return {"G": before, "N": name, "W": name + voice.pick(ON_LANDSCAPES[ground])}
    first, second = (voice.pick(NOUNS[colour]) if colour else "" for colour in (about.first, about.second))
    if about.kind == "plain":
        name = first
    elif about.kind == "graded":
        name = voice.pick((f"从{first}到{second}渐变的", f"{first}到{second}的渐变"))
    else:
        texture = TEXTURES[about.kind][0]
        name = voice.pick((f"{first}和{second}{texture}", f"{first}{second}相间的{texture}", f"{first}{texture}"))
    word = voice.pick(("背景", "背景", "底"))
    where = voice.pick(("上", "上", "前", "下"))
    return {"G": f"{name}{word}", "N": name.removesuffix("的"), "W": f"{name}{word}{where}"}


def measure(named: Named) -> str:
    """The measure word of a thing."""
    if named.figure or named.slot:
        return "个"
    name = named.thing.name
    return MEASURES.get(name, "个") if named.thing.is_shape else objects()[name].measure


def noun(named: Named, voice: Voice) -> str:
    """A thing with what is said of it, without a measure word."""
    thing = named.thing
    words = [voice.any(NICE)] if voice.chance(0.08) else []
    if thing.size:
        words.append(voice.pick(SIZES[thing.size]))
    if named.figure:
        first, second = (voice.pick(NOUNS[c]) for c in named.tones or ("red", "red"))
        if thing.texture == "plain":
            return "".join([*words, first, voice.pick(FIGURES[named.figure])])
        texture = voice.pick(TEXTURES[str(thing.texture)])
        return "".join([*words, first, "和", second, texture, voice.pick(FIGURES[named.figure])])
    colour = thing.colour or named.own_colour
    if colour:
        words.append(voice.pick(COLOURS[colour]))
    if thing.texture:
        words.append(voice.pick(TEXTURES[thing.texture]))
    forms = SHAPES[thing.name] if thing.is_shape else objects()[thing.name].forms["zh"]
    form = named.slot or voice.pick(forms)
    if words and words[-1] == "大" and form.startswith("大"):
        form = form[1:]
    if words and words[-1] == "小" and form.startswith("小"):
        form = form[1:]
    return "".join([*words, form])


def finish(text: str, voice: Voice) -> str:
    """Traditional characters, tags, quotes and full stops."""
    if voice.rng is None:
        return text
    if voice.chance(0.1):
        text = f"{text}，{'，'.join(voice.rng.sample(TAGS, voice.rng.randint(1, 2)))}"
    if voice.chance(TRADITIONAL):
        text = traditional(text)
    if voice.chance(0.15) and text[-1] not in "？！":
        text += "。"
    return f"“{text}”" if voice.chance(0.03) else text
