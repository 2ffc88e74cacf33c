"""Numbers, dates, money and the like as Chinese reads them: speechio's TextNorm with all its options off, as the
official evaluation calls it.

Written from a description of its rules, quirks included: each rule looks for its matches in the text as it was before
the rule, and then replaces the first place where each match's text occurs, which need not be where it was found.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from itertools import pairwise

DIGITS = "零一二三四五六七八九"
# Power of ten, and its sign. 十 is apart: it neither turns 2 into 两 nor lets the 2 behind it be one.
UNITS = tuple(zip((44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1), "载正涧沟穰秭垓京兆亿万千百十", strict=True))
SIGNS = frozenset(sign for _, sign in UNITS)
FULL_WIDTH = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃"
    "《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏·〈〉"
)
TO_SPACE = str.maketrans(dict.fromkeys(FULL_WIDTH + string.punctuation, " "))
MEASURE_WORDS = (
    "匹张座回场尾条个首阙阵网炮顶丘棵只支袭辆挑担颗壳窠曲墙群腔砣客贯扎捆刀令打手罗坡山岭江溪钟队单双对出口头脚板跳枝件贴针线管名位身堂课"
    "本页家户层丝毫厘分钱两斤铢石钧锱忽寸尺丈里寻常铺程撮勺合升斗盘碗碟叠桶笼盆盒杯斛锅簋篮罐瓶壶卮盏箩箱煲啖袋钵年月日季刻时周天秒旬纪岁世"
    "更夜春夏秋冬代伏辈丸泡粒幢堆根道面片块"
)
MEASURE = f"(?:[千毫微]克|[千分厘毫微]米|[{MEASURE_WORDS}])"
MONEY_UNIT = "(?:亿|千万|百万|[万千百元块角毛分])"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def cardinal(number: str) -> str:
    """`number`, digits with at most one point, as a quantity: "200" is 两百, "007" 零七, "00" nothing."""
    whole, point, decimals = number.partition(".")
    text = read_digits(whole) if len(whole) == 1 else "".join(_two(list(_symbols(whole))))
    if point:
        text = (text or "零") + "点" + read_digits(decimals)
    return text[1:] if text.startswith("一十") else text


def read_digits(number: str) -> str:
    """One sign a digit, as years and telephone numbers are read."""
    return "".join(DIGITS[int(digit)] for digit in number)


def _symbols(number: str) -> Iterator[str]:
    """Digits and units of a quantity: "101" gives 一 百 零 一."""
    value = number.lstrip("0")
    if len(value) == 1:
        yield from "零" * (len(number) > 1) + DIGITS[int(value)]
    elif value:
        power, sign = next(unit for unit in UNITS if unit[0] < len(value))
        yield from _symbols(number[:-power])  # with its leading zeros
        yield sign
        yield from _symbols(number[-power:])


def _two(symbols: list[str]) -> Iterator[str]:
    """两 for a 2 before a unit other than 十, where it is the first or stands behind such a unit."""
    great = SIGNS - {"十"}
    for before, (symbol, behind) in zip(["", *symbols], pairwise([*symbols, ""]), strict=False):
        yield "两" if symbol == "二" and behind in great and (not before or before in great) else symbol


def _date(text: str) -> str:
    year, mark, rest = text.rpartition("年")
    month, month_mark, day = rest.partition("月")
    spoken = read_digits(year) + mark
    if month_mark:
        spoken += cardinal(month) + month_mark
    return spoken + (cardinal(day[:-1]) + day[-1] if day else "")


def _fraction(text: str) -> str:
    above, _, below = text.partition("/")
    return f"{cardinal(below)}分之{cardinal(above)}"


def _telephone(text: str) -> str:
    return "".join(map(read_digits, re.split("[- ]", text.strip("+"))))


# What is looked for, the group that is replaced, and by what; in this order.
RULES: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"\D+((?:(?:[089]\d|(?:19|20)\d{2})年)?(?:\d{1,2}月(?:\d{1,2}[日号])?)?)"), _date),
    (
        re.compile(rf"\D+(\d+(?:\.\d+)?[多余几]?{MONEY_UNIT}(?:\d{MONEY_UNIT}?)?)"),
        lambda text: NUMBER.sub(lambda match: cardinal(match[0]), text),
    ),
    (re.compile(r"\D((?:\+?86 ?)?1(?:[38]\d|5[0-35-9]|7[678]|9[89])\d{8})\D"), _telephone),
    (re.compile(r"\D((?:0(?:10|2[1-3]|[3-9]\d{2})-?)?[1-9]\d{6,7})\D"), _telephone),
    (re.compile(r"(\d+/\d+)"), _fraction),
    (re.compile(r"(\d+(?:\.\d+)?%)"), lambda text: "百分之" + cardinal(text[:-1])),
    (re.compile(rf"(\d+(?:\.\d+)?)[多余几]?{MEASURE}"), cardinal),
    (re.compile(r"(\d{4,32})"), read_digits),
    (re.compile(r"(\d+(?:\.\d+)?)"), cardinal),
    (re.compile(r"([a-zA-Z]+二[a-zA-Z]+)"), lambda text: text.replace("二", "2")),  # P2P was none of the numbers
)
PERCENT_RULE = 5  # before it, the full-width sign becomes %


def normalize_chinese(text: str) -> str:
    """`text` with its numbers as Chinese words and its punctuation, Chinese and ASCII, as spaces."""
    text = f"^{text}$"
    for number, (pattern, spoken) in enumerate(RULES):
        if number == PERCENT_RULE:
            text = text.replace("％", "%")
        for found in pattern.findall(text):
            text = text.replace(found, spoken(found), 1)
    return text.lstrip("^").rstrip("$").translate(TO_SPACE)
