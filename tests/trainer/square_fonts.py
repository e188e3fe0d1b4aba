"""A font made on the spot, whose every glyph is the same square."""

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen


def write_font(path, codes, colors=None):
    """For these code points; each in its color (red, green, blue, from 0 to 1), where there are some."""
    names = [f"glyph{code:x}" for code in codes]
    every = [".notdef", *names]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(every)
    builder.setupCharacterMap(dict(zip(codes, names, strict=True)))
    builder.setupGlyf(dict.fromkeys(every, square()))
    builder.setupHorizontalMetrics(dict.fromkeys(every, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    if colors is not None:
        builder.setupCPAL([[(*color, 1.0) for color in colors]])
        builder.setupCOLR({name: [(name, place)] for place, name in enumerate(names)})
    builder.save(path)


def square():
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()
