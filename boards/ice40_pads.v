// Pads as plain wires, for simulators without tristate pins: an output pad of type 101001
// (simple output) and a clock pad. `techmap` puts them in place of the vendor's cells.

module SB_IO (inout PACKAGE_PIN, input CLOCK_ENABLE, input OUTPUT_ENABLE, input D_OUT_0);
    parameter PIN_TYPE = 6'b000000;
    parameter IO_STANDARD = "";
    wire _TECHMAP_FAIL_ = PIN_TYPE != 6'b101001;
    assign PACKAGE_PIN = D_OUT_0;
endmodule

module SB_GB_IO (inout PACKAGE_PIN, input CLOCK_ENABLE, output GLOBAL_BUFFER_OUTPUT);
    parameter PIN_TYPE = 6'b000000;
    parameter IO_STANDARD = "";
    wire _TECHMAP_FAIL_ = PIN_TYPE != 6'b000001;
    assign GLOBAL_BUFFER_OUTPUT = PACKAGE_PIN;
endmodule
