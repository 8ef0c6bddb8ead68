// Pads as plain wires, for simulators without tristate pins; `techmap` puts them in place of the
// vendors' cells. A pad that does not drive is pulled up.

// iCE40: PIN_TYPE 101001 is an output that can be disabled, 000001 an input.
module SB_IO (
    inout PACKAGE_PIN, input CLOCK_ENABLE, input OUTPUT_ENABLE, input D_OUT_0, output D_IN_0
);
    parameter PIN_TYPE = 6'b000000;
    parameter PULLUP = 1'b0;
    parameter IO_STANDARD = "";
    wire _TECHMAP_FAIL_ = PIN_TYPE != 6'b101001 && PIN_TYPE != 6'b000001;
    generate
        if (PIN_TYPE == 6'b101001) assign PACKAGE_PIN = OUTPUT_ENABLE ? D_OUT_0 : 1'b1;
        else assign D_IN_0 = PACKAGE_PIN;
    endgenerate
endmodule

module SB_GB_IO (inout PACKAGE_PIN, input CLOCK_ENABLE, output GLOBAL_BUFFER_OUTPUT);
    parameter PIN_TYPE = 6'b000000;
    parameter PULLUP = 1'b0;
    parameter IO_STANDARD = "";
    wire _TECHMAP_FAIL_ = PIN_TYPE != 6'b000001;
    assign GLOBAL_BUFFER_OUTPUT = PACKAGE_PIN;
endmodule

// ECP5
module IB (input I, output O);
    assign O = I;
endmodule

module OBZ (input I, input T, output O);
    assign O = T ? 1'b1 : I;
endmodule

// Gowin
module IBUF (input I, output O);
    assign O = I;
endmodule

module TBUF (input I, input OEN, output O);
    assign O = OEN ? 1'b1 : I;
endmodule
