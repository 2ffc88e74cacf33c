"""What is said in the eight clips of a part, in the languages of the benchmarks."""

from __future__ import annotations

_EN = (
    "the cat sat on the mat", "it is raining today", "where is the station", "two plus two is four",
    "she opened the window", "good morning everybody", "the train was late again", "he bought a red bicycle",
)  # fmt: skip
TEXTS: dict[str, tuple[str, ...]] = {
    "en": tuple(text.capitalize() + "." for text in _EN),
    "EN": tuple(text.upper() for text in _EN),  # as LibriSpeech writes it
    "zh": (
        "今天天气很好", "我们去吃饭吧", "火车晚点了", "请打开窗户", "他买了一辆自行车", "早上好各位",
        "车站在哪里", "二加二等于四",
    ),
    "yue": ("今日天氣好好", "我哋去食飯啦", "火車遲到咗", "請打開隻窗", "佢買咗架單車", "早晨各位",
            "車站喺邊度", "二加二等於四"),
    "fr": (
        "Le chat est sur le tapis.", "Il pleut aujourd'hui.", "Où est la gare ?", "Deux et deux font quatre.",
        "Elle a ouvert la fenêtre.", "Bonjour à tous.", "Le train était en retard.", "Il a acheté un vélo rouge.",
    ),
    "de": (
        "Die Katze sitzt auf der Matte.", "Es regnet heute.", "Wo ist der Bahnhof?", "Zwei und zwei ist vier.",
        "Sie öffnete das Fenster.", "Guten Morgen allerseits.", "Der Zug kam zu spät.", "Er kaufte ein rotes Fahrrad.",
    ),
}  # fmt: skip
EMOTIONS = ("neutral", "joy", "anger", "surprise", "sadness", "disgust", "fear", "neutral")
VOCAL_SOUNDS = ("Laughter", "Sigh", "Cough", "Throat clearing", "Sneeze", "Sniff", "Laughter", "Cough")
