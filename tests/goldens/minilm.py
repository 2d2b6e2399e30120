"""What sentence-transformers makes of 200 varied texts with all-MiniLM-L6-v2: `make minilm`, then this.

    pip install -r tests/goldens/requirements.txt
    python tests/goldens/minilm.py

Writes minilm.jsonl, a JSON string a line, and minilm.f32, a row of 384 little-endian float32 for each of them.
"""

import json
import random
import unicodedata
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / ".models/minilm/1"
COUNT = 200
WORDS = """
gate water lock river boat barge level rise fall slow fast open close keeper night morning rain stone iron wood market
price invoice payment card fraud customer order parcel late refund bank account tumour cell nucleus patient doctor dose
image digit pixel model weight tensor batch queue thread server request answer error budget deploy rollback canary the a
of to and in is was not with for on by from it that which she he they we quickly quietly never always often perhaps
""".split()

EMPTY = ["", " ", "\n", "\t\t", " \r\n ", "\u00a0", "\u3000", ".", "?!", "a"]

LANGUAGES = [
    "Das Wasser steigt langsam in der Schleuse.",
    "L'écluse s'ouvre à six heures du matin, sauf le dimanche.",
    "La compuerta está cerrada; ¿cuándo volverá el guardián?",
    "A comporta não abre enquanto o nível não é igual dos dois lados.",
    "Il fiume è calmo, però l'acqua è fredda.",
    "De sluis wordt om half acht geopend.",
    "Śluza jest zamknięta, proszę czekać na sygnał.",
    "Propust je zatvořený, žluťoučký kůň čeká.",
    "Slussen er stengt på grunn av høy vannstand.",
    "Sulku avataan vasta, kun vesi on tasassa.",
    "A zsilipkapu árvíztűrő tükörfúrógépet rejt.",
    "Su kapısı ağır ağır açılıyor, İstanbul'da ışık sönüyor.",
    "Шлюз открывается медленно, вода поднимается.",
    "Шлюз відчиняється о шостій ранку.",
    "Η θύρα ανοίγει αργά και το νερό ανεβαίνει.",
    "השער נפתח לאט והמים עולים",
    "تفتح البوابة ببطء ويرتفع الماء.",
    "دروازه آهسته باز می‌شود",
    "पानी धीरे-धीरे बढ़ता है और फाटक खुलता है।",
    "জল ধীরে ধীরে বাড়ছে।",
    "நீர் மெதுவாக உயர்கிறது.",
    "ประตูน้ำเปิดช้าๆ",
    "水门慢慢打开,水位上升。",
    "水門がゆっくり開き、水位が上がります。",
    "수문이 천천히 열리고 물이 차오른다.",
    "ወሃው ቀስ ብሎ ይነሳል",
    "Cửa cống mở ra chậm rãi.",
    "ჭიშკარი ნელა იღება",
    "Դարպասը դանդաղ բացվում է",
    "lango linafunguka polepole",
]

EMOJI = [
    "🙂",
    "🚢🌊🔒",
    "the gate is open 🎉🎉🎉",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb",
    "🇩🇪🇫🇷🇯🇵 flags and 1️⃣2️⃣3️⃣ keys",
    "no emoji here :-) ;-P <3",
    "🙂" * 300,
    "❤️ and ❤ and ♥",
    "𝓉𝒽𝑒 𝑔𝒶𝓉𝑒 and 𝟙𝟚𝟛",
    "a🙂b🙂c🙂d",
]

MIXED = [
    "The шлюз is 開 and مفتوح, n'est-ce pas?",
    "Москва 東京 London القاهرة Αθήνα",
    "price: 12,50 € / ¥1,600 / ₹999 / £7",
    "naïve café, Zoë's résumé – façade",
    "ｆｕｌｌ ｗｉｄｔｈ ＡＢＣ １２３",
    "ﬁne ﬂow ﬃ ligatures",
    "paypal vs раураl",
    "x² + y² ≤ r², √2 ≈ 1.414, ∀ε>0 ∃δ>0",
    "H₂O → 2H⁺ + O²⁻",
    "☃ ☂ ☕ ★ ♜ ⚓ ✓",
    "가나다 abc 가나다",
    "漢字かなカナKANJI",
]

CONTROLS = [
    "\u0000",
    "a\u0000b",
    "bell \u0007 and \u001b[31mred\u001b[0m",
    "\u0001\u0002\u0003\u0004\u0005",
    "delete \u007f and next line \u0085 here",
    "line \u2028 and paragraph \u2029 separators",
    "\ufeffa mark at the start",
    "replaced \ufffd characters \ufffd\ufffd",
    "private \ue000\uf8ff use",
    "not characters \uffff \ufdd0",
    "tab\tseparated\tvalues\r\nand lines\r\n",
    "soft\u00adhyphen",
]

RIGHT_TO_LEFT = [
    "שלום עולם",
    "مرحبا بالعالم",
    "\u202eevil txt.exe",
    "english עברית english עברית",
    "العدد ١٢٣٤ والعدد 5678",
    "\u200fmarks\u200e around \u2067isolates\u2069",
    "שָׁלוֹם with points",
    "السَّلَامُ عَلَيْكُمْ",
]

LONG_WORDS = [
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 500 + " then words",
    "ab-" * 200,
    "_" * 80,
]

CODE = [
    "fn main() { println!(\"{}\", 1 << 3); }",
    "SELECT id, total FROM orders WHERE paid = FALSE ORDER BY total DESC LIMIT 10;",
    "for i in range(10):\n    print(i ** 2, end=' ')\n",
    "{\"inputs\": [{\"name\": \"text\", \"shape\": [1], \"datatype\": \"BYTES\"}]}",
    "<html><body class='x'>&lt;b&gt;</body></html>",
    "https://example.org/models/minilm?version=2&x=%20#top",
    "keeper@example.org, CC: gate+water@example.co.uk",
    "rm -rf \"$OUT\" && tar -xzf a.tgz | grep -v '^#' > /dev/null 2>&1",
    "\\begin{equation} e^{i\\pi} + 1 = 0 \\end{equation}",
    "0x7fffffff 0b1010 1e-9 NaN -Inf",
    "std::vector<std::pair<int, int>>&& moved = std::move(other);",
    "git commit -m 'fix: off by one' && git push origin HEAD~3",
]

NUMBERS = [
    "0",
    "3.141592653589793",
    "1,000,000.00",
    "-17 °C",
    "2026-11-26T04:05:11Z",
    "+49 (0)30 901820",
    "4111 1111 1111 1111",
    "192.168.0.1:8080",
    "1" * 120,
    "12 34 56 78 90 " * 20,
]

REPEATED = ["water", "water water", "water " * 10, "no " * 100, "ha" * 60, "!" * 400, "... " * 90, "buffalo " * 252]

ACCENTS = [
    "Ångström façade Zoë",
    unicodedata.normalize("NFD", "Ångström façade Zoë"),
    unicodedata.normalize("NFC", "Việt Nam, tiếng Việt"),
    unicodedata.normalize("NFD", "Việt Nam, tiếng Việt"),
    unicodedata.normalize("NFD", "한국어 가나다"),
    "z\u0351\u036b\u0343a\u0300\u0301\u0302\u0303l\u0334\u0335g\u0489o\u035f",
    "\u0301",
    "e\u0301\u0301\u0301\u0301",
    "STRASSE straße ẞ",
    "ΌΣΟΣ ΟΔΟΣ ς σ",
    "İI ıi",
    "Ǆ ǅ ǆ ŉ ſ",
]

ZERO_WIDTH = [
    "zero\u200bwidth\u200bspace",
    "join\u200der and non\u200cjoiner",
    "\u200b",
    "word\u2060joiner",
    "\u200b\u200c\u200d\u2060\ufeff" * 20,
    "in\u034fvisible \u2063separators\u2064",
]

SPECIAL_TOKENS = ["[CLS]", "[SEP] after", "[MASK] is the capital", "[PAD] [PAD] [PAD]", "[UNK] and [unk]", "a [CLS] b [SEP] c"]

# Around where a text is cut: 256 tokens, of which two are not the text's.
CUT = [" ".join(["gate"] * words) for words in (126, 127, 253, 254, 255, 256, 257, 600)]


def sentences(count: int, most: int, draw: random.Random) -> list[str]:
    """Made of WORDS, from one word to `most` of them."""
    lengths = [round(most ** (i / (count - 1))) for i in range(count)]
    return [" ".join(draw.choices(WORDS, k=length)).capitalize() + draw.choice(".?!") for length in lengths]


def texts() -> list[str]:
    draw = random.Random(20261126)
    prose = " ".join(draw.choices(WORDS, k=4_000))
    scripts = "".join(draw.choices("".join(LANGUAGES), k=10_000))
    long = [prose[:10_000], scripts, "a" * 10_000, (" \n" * 4_000 + prose)[:10_000]]
    listed = [EMPTY, LANGUAGES, EMOJI, MIXED, CONTROLS, RIGHT_TO_LEFT, LONG_WORDS, CODE, NUMBERS, REPEATED, ACCENTS, ZERO_WIDTH]
    listed += [SPECIAL_TOKENS, CUT, long]
    found = [text for part in listed for text in part]
    return found + sentences(COUNT - len(found), 240, draw)


def main() -> None:
    from sentence_transformers import SentenceTransformer

    told = texts()
    rows = SentenceTransformer(str(MODEL), device="cpu").encode(told, batch_size=16)
    (HERE / "minilm.jsonl").write_text("".join(json.dumps(text) + "\n" for text in told))
    (HERE / "minilm.f32").write_bytes(rows.astype("<f4").tobytes())
    print(f"{len(told)} texts of {len(set(told))} kinds, {rows.shape}")


if __name__ == "__main__":
    main()
