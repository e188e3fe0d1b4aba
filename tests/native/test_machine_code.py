"""The reader of machine code finds loops and what they hold."""

import machine_code
import pytest

# A nest of two loops, a way around the inner one, and a divergent warp's detour that comes back into it.
LISTING = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   IMAD.WIDE R2, R4, 0x4, R2 ;
        /*0020*/               @P0 BRA `(.L_x_3) ;
.L_x_2:
        /*0030*/                   LDG.E.128 R4, [R2.64] ;
        /*0040*/                   LDG.E.U16 R8, [R2.64+0x10] ;
        /*0050*/                   BRA.DIV UR6, `(.L_x_5) ;
.L_x_4:
        /*0060*/                   FFMA R9, R4, R5, R9 ;
        /*0070*/              @!P1 BRA P2, `(.L_x_2) ;
.L_x_3:
        /*0080*/                   FFMA R9, R4, R5, R9 ;
        /*0090*/                   FFMA R9, R4, R5, R9 ;
        /*00a0*/                   BRA UP0, `(.L_x_1) ;
        /*00b0*/                   EXIT ;
.L_x_5:
        /*00c0*/                   SHFL.IDX R4, R4, R5, 0x1f ;
        /*00d0*/                   BRA `(.L_x_4) ;
"""


def test_a_loop_holds_its_own_instructions():
    outer, inner = machine_code.loops(LISTING)
    assert (outer.head, outer.depth, outer.innermost) == (".L_x_1", 0, False)
    assert outer.classes() == {"control": 2, "float": 2, "integer": 1}
    assert (inner.head, inner.depth, inner.innermost) == (".L_x_2", 1, True)
    assert inner.classes() == {"control": 2, "global": 2, "float": 1}
    assert inner.loaded_bytes == 18


def test_the_main_loop_is_the_innermost_one():
    assert machine_code.main_loop(LISTING, "FFMA").head == ".L_x_2"
    assert machine_code.main_loop(LISTING, "IMAD").head == ".L_x_1"
    with pytest.raises(ValueError, match="no loop holds IMAD and loads"):
        machine_code.main_loop(LISTING, "IMAD", loads=True)
