"""Exchanges as pictures: two lifelines, an arrow for each packet, its payloads above it; what is encrypted is in a box of its own."""

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 800, 70, 730
# A letter of a monospaced font is 0.6 of its size wide, of others about as much at most.
SIZE, LETTER, GAP, CHIP, LINE = 12, 7.3, 7, 20, 27
STYLE = """
    text { font-family: "DejaVu Sans", Verdana, sans-serif; font-size: 12px; fill: #1f2328; }
    .chip { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; }
    .card { fill: #fbfbfd; stroke: #c9ced6; }
    .clear { fill: #ffffff; stroke: #57606a; }
    .sealed { fill: #dbeafe; stroke: #1d4ed8; }
    .box { fill: #eff6ff; stroke: #1d4ed8; stroke-dasharray: 4 3; }
    .lock { fill: #1d4ed8; }
    .life { stroke: #8c959f; stroke-dasharray: 2 4; }
    .end { fill: #24292f; }
    .end-name { fill: #ffffff; font-weight: bold; }
    .end-more { fill: #d0d7de; font-size: 11px; }
    .name { font-weight: bold; }
    .more { fill: #57606a; font-weight: normal; }
    .note { fill: #fff8e1; stroke: #d4a72c; }
    .note-text { fill: #4d3800; }
    .wire { stroke: #1f2328; stroke-width: 1.6; }
    .head { fill: #1f2328; }
"""


def wide(text):
    return len(text) * LETTER


class Picture:
    """What is drawn goes from the top down."""

    def __init__(self, title):
        self.title, self.parts, self.y, self.seals = title, [], 0, False

    def add(self, text, *values):
        self.parts.append("  " + (text % values if values else text))

    def text(self, x, y, text, kind="", anchor="middle"):
        self.add('<text x="%g" y="%g" text-anchor="%s"%s>%s</text>', x, y, anchor, ' class="%s"' % kind if kind else "", text)

    def rectangle(self, kind, x, y, width, height, round=4):
        self.add('<rect class="%s" x="%g" y="%g" width="%g" height="%g" rx="%g"/>', kind, x, y, width, height, round)

    def lock(self, x, y):
        """12 high."""
        self.add('<path class="lock" d="M%g %gh9v7h-9zM%g %gv-2a2.5 2.5 0 0 1 5 0v2h-1.3v-2a1.2 1.2 0 0 0 -2.4 0v2z"/>', x, y + 5, x + 2, y + 5)

    def svg(self, height):
        head = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img">\n'
                "  <title>%s</title>\n  <style>%s  </style>" % (WIDTH, height, WIDTH, height, escape(self.title), STYLE))
        card = '  <rect class="card" x="0.5" y="0.5" width="%g" height="%g" rx="8"/>' % (WIDTH - 1, height - 1)
        return "\n".join([head, card, *self.parts, "</svg>\n"])


def lines(chips, width):
    """Chips in lines that are no wider."""
    all = [[]]
    for chip in chips:
        if all[-1] and sum(wide(c) + 12 + GAP for c in all[-1] + [chip]) > width:
            all.append([])
        all[-1].append(chip)
    return all


class Sequence(Picture):
    """Packets between two ends. `ends` are their names and what is below each; `legend` is said at the bottom."""

    def __init__(self, title, ends, legend):
        super().__init__(title)
        self.ends, self.legend = ends, legend
        self.y = 74

    def chips(self, chips, kind):
        """Some lines of them, in the middle; encrypted ones in a box with a lock."""
        all = lines(chips, RIGHT - LEFT - 90)
        most = max(sum(wide(c) + 12 + GAP for c in line) - GAP for line in all)
        if kind == "sealed":
            self.seals = True
            self.rectangle("box", WIDTH / 2 - most / 2 - 30, self.y - 5, most + 40, len(all) * LINE + 3, 6)
            self.lock(WIDTH / 2 - most / 2 - 21, self.y + len(all) * LINE / 2 - 10)
        for line in all:
            x = WIDTH / 2 - (sum(wide(c) + 12 + GAP for c in line) - GAP) / 2
            for chip in line:
                self.rectangle(kind, x, self.y, wide(chip) + 12, CHIP)
                self.text(x + wide(chip) / 2 + 6, self.y + 14, escape(chip), "chip")
                x += wide(chip) + 12 + GAP
            self.y += LINE
        if kind == "sealed":
            self.y += 6

    def packet(self, goes_right, name, more, chips):
        """Chips are texts, and whether each is encrypted."""
        self.y += 14
        self.text(WIDTH / 2, self.y, '<tspan class="name">%s</tspan><tspan class="more" dx="10">%s</tspan>' % (escape(name), escape(more)))
        self.y += 11
        for kind, of in (("clear", [c for c, sealed in chips if not sealed]), ("sealed", [c for c, sealed in chips if sealed])):
            if of:
                if kind == "sealed":
                    self.y += 5 if any(not sealed for _, sealed in chips) else 3
                self.chips(of, kind)
        self.y += 4
        a, b = (LEFT, RIGHT - 9) if goes_right else (RIGHT, LEFT + 9)
        self.add('<line class="wire" x1="%g" y1="%g" x2="%g" y2="%g"/>', a, self.y, b, self.y)
        tip, back = (RIGHT - 1, RIGHT - 11) if goes_right else (LEFT + 1, LEFT + 11)
        self.add('<path class="head" d="M%g %gL%g %gL%g %gz"/>', tip, self.y, back, self.y - 5, back, self.y + 5)
        self.y += 16

    def note(self, *texts):
        """What both know now."""
        self.y += 4
        width = max(map(wide, texts)) * 0.94 + 28
        self.rectangle("note", WIDTH / 2 - width / 2, self.y, width, 10 + 17 * len(texts), 5)
        for text in texts:
            self.y += 17
            self.text(WIDTH / 2, self.y, escape(text), "note-text")
        self.y += 24

    def draw(self):
        for x, (name, more) in zip((LEFT, RIGHT), self.ends):
            x = min(max(x, 66), WIDTH - 66)
            self.rectangle("end", x - 56, 16, 112, 42, 6)
            self.text(x, 34, escape(name), "end-name")
            self.text(x, 50, escape(more), "end-more")
        bottom = self.y + 2
        for x in (LEFT, RIGHT):
            self.parts.insert(0, '  <line class="life" x1="%g" y1="58" x2="%g" y2="%g"/>' % (x, x, bottom))
        x, y = 150, bottom + 14
        for kind, text in (("clear", "in clear"), ("sealed", "encrypted")):
            if kind == "clear" or self.seals:
                self.rectangle(kind, x, y, 18, 12, 3)
                self.text(x + 26, y + 10.5, text, "more", "start")
                x += 110
        self.text(x, y + 10.5, self.legend, "more", "start")
        return self.svg(y + 28)


class Layout(Picture):
    """Packets as rows of fields."""

    def __init__(self, title):
        super().__init__(title)
        self.y = 18

    def row(self, name, more, fields, spans=()):
        """Fields are a name, its octets, how wide it is, and whether it is clear or encrypted; spans are below: a text, and from which
        field to which."""
        self.y += 14
        self.text(24, self.y, '<tspan class="name">%s</tspan><tspan class="more" dx="10">%s</tspan>' % (escape(name), escape(more)), "", "start")
        self.y += 9
        whole = sum(width for _, _, width, _ in fields)
        edges, x = [24], 24
        for text, octets, width, kind in fields:
            width = (WIDTH - 48) * width / whole
            self.rectangle(kind, x, self.y, width, 40, 0)
            self.text(x + width / 2, self.y + 17, escape(text), "chip")
            self.text(x + width / 2, self.y + 33, octets, "more")
            x += width
            edges.append(x)
        self.y += 40
        for text, start, end in spans:
            self.y += 12
            a, b = edges[start] + 1, edges[end] - 1
            self.add('<path fill="none" class="wire" style="stroke-width:1" d="M%g %gv4H%gv-4"/>', a, self.y - 6, b)
            self.text((a + b) / 2, self.y + 12, text, "more")
            self.y += 14
        self.y += 20

    def draw(self):
        return self.svg(self.y + 2)
