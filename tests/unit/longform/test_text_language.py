"""The first article of the Universal Declaration of Human Rights, in every language that is known."""

import pytest

from qwen2_audio.longform.text_language import language_of_text
from qwen2_audio.longform.wording import LANGUAGES

ARTICLE = {
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají "
          "spolu jednat v duchu bratrství.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "en": "All human beings are born free and equal in dignity and rights.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
          "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja "
          "omatunto.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
          "conscience.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "hu": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és "
          "lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy viseltessenek.",
    "id": "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama. Mereka dikaruniai akal "
          "dan hati nurani.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
          "coscienza.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "ms": "Semua manusia dilahirkan bebas dan samarata dari segi kemuliaan dan hak-hak.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en "
          "geweten.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
          "consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "ro": "Toate ființele umane se nasc libere și egale în demnitate și în drepturi. Ele sunt înzestrate cu rațiune.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "yue": "人人生嚟就係自由嘅，喺尊嚴同權利上一律平等。",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
}  # fmt: skip


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_language(code):
    assert language_of_text(ARTICLE[code]) == code


SAID = {
    "cs": "Kde je nádraží a jak se tam dostanu?", "de": "Wo ist der Bahnhof und wie komme ich dahin?",
    "en": "Where is the station and how do I get there?",
    "es": "¿Dónde está la estación y cómo voy a llegar a los andenes?",
    "fi": "Missä asema on ja miten minä pääsen sinne?", "fr": "Où est la gare et comment puis-je y aller ?",
    "hu": "Hol van az állomás, és hogy jutok el oda?", "it": "Dove è la stazione e come ci arrivo con il treno?",
    "nl": "Waar is het station en hoe kom ik er?", "pl": "Gdzie jest dworzec i jak się tam dostać?",
    "pt": "Onde fica a estação e como é que eu chego lá com o metrô?", "ro": "Unde este gara și cum ajung la ea?",
    "sv": "Var är stationen och hur kommer jag dit?", "tr": "İstasyon nerede ve oraya bir otobüs var mı?",
    "vi": "Nhà ga ở đâu và tôi đến đó như thế nào?", "id": "Di mana stasiun itu dan bisa saya ke sana?",
}  # fmt: skip


@pytest.mark.parametrize("code", SAID)
def test_a_short_question(code):
    assert language_of_text(SAID[code]) == code


@pytest.mark.parametrize("text", ["", "Okay.", "1 2 3", "I heard 1 s", "Paris", "taxi hotel radio", "yang dan ini itu"])
def test_too_little_to_tell(text):
    assert language_of_text(text) is None
