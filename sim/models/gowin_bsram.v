// The block RAM of Gowin's GW1N and GW2A: 16 Kbit in bytes (SP, DPB) or 18 Kbit in groups of
// nine (SPX9, SDPX9B, DPX9B), with one port, one that writes and one that reads, or two.
//
// After UG285 (Gowin, BSRAM & SSRAM User Guide), for what netlists of ours have of it: all blocks
// selected, synchronous reset, which clears what is read whether the port is enabled or not. A port
// is 1, 2, 4 or 8 bits wide, or 16 or 32, whose bytes are enabled by the lowest bits of the address;
// with groups of nine it is 9, 18 or 36.
//
// A bit that is read while another port writes it is unknown.

`define BSRAM_INITS(BITS) parameter [BITS - 1:0] \
    INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0, \
    INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, INIT_RAM_08 = 0, INIT_RAM_09 = 0, \
    INIT_RAM_0A = 0, INIT_RAM_0B = 0, INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, \
    INIT_RAM_0F = 0, INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, \
    INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0, INIT_RAM_18 = 0, \
    INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0, INIT_RAM_1D = 0, \
    INIT_RAM_1E = 0, INIT_RAM_1F = 0, INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, \
    INIT_RAM_23 = 0, INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0, \
    INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0, \
    INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0, INIT_RAM_30 = 0, INIT_RAM_31 = 0, \
    INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0, \
    INIT_RAM_37 = 0, INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0, \
    INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0;
`define BSRAM_INIT { \
    INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, \
    INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, \
    INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, \
    INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28, \
    INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, \
    INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, \
    INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16, \
    INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10, \
    INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, \
    INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, \
    INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00 \
}

// A port keeps its data while it writes (MODE 0), shows what it writes (1) or what was there (2).
module gowin_bsram #(
    parameter UNIT = 8, WIDTH_A = 32, WIDTH_B = 32, MODE_A = 0, MODE_B = 0, PIPE_A = 0, PIPE_B = 0,
    parameter [2048 * UNIT - 1:0] INIT = 0
) (
    input clka, cea, wrea, rsta, ocea, clkb, ceb, wreb, rstb, oceb,
    input [13:0] ada, adb,
    input [4 * UNIT - 1:0] dia, dib,
    output [4 * UNIT - 1:0] doa, dob
);
    // Groups in a word, the first one of the word at an address, the bits of a group that are the
    // word's, and whether group i of a word is written.
    function integer groups(input integer width);
        groups = width > UNIT ? width / UNIT : 1;
    endfunction
    function [10:0] group(input [13:0] address, input integer width);
        group = address[13:3] & -groups(width);
    endfunction
    function [UNIT - 1:0] part(input [13:0] address, input integer width);
        part = width < 8 ? ((9'd1 << width) - 1) << (address & 7 & -width) : {UNIT{1'b1}};
    endfunction
    function [2:0] shift(input [13:0] address, input integer width);
        shift = width < 8 ? address & 7 & -width : 0;
    endfunction
    function enabled(input [13:0] address, input integer width, input integer i);
        enabled = width > UNIT ? address[i] : 1'b1;
    endfunction

    reg [UNIT - 1:0] memory [0:2047];
    reg [UNIT - 1:0] word;
    reg [4 * UNIT - 1:0] reada, readb, qa, qb, ra, rb;
    integer i, j;
    initial begin
        for (i = 0; i < 2048; i = i + 1) memory[i] = INIT[UNIT * i +: UNIT];
        {qa, qb, ra, rb} = 0;
    end

    always @(posedge clka) begin
        reada = 0;
        for (i = 0; i < groups(WIDTH_A); i = i + 1) begin
            word = memory[group(ada, WIDTH_A) + i];
            for (j = 0; j < groups(WIDTH_B); j = j + 1)
                if (ceb && wreb && enabled(adb, WIDTH_B, j)
                    && group(adb, WIDTH_B) + j == group(ada, WIDTH_A) + i)
                    word = word ^ (part(adb, WIDTH_B) & {UNIT{1'bx}});
            reada[UNIT * i +: UNIT] = (word & part(ada, WIDTH_A)) >> shift(ada, WIDTH_A);
        end
        if (cea && wrea) begin
            for (i = 0; i < groups(WIDTH_A); i = i + 1)
                for (j = 0; j < UNIT; j = j + 1)
                    if (enabled(ada, WIDTH_A, i) && (part(ada, WIDTH_A) >> j & 1'b1))
                        memory[group(ada, WIDTH_A) + i][j] <=
                            dia[UNIT * i + j - shift(ada, WIDTH_A)];
            if (MODE_A == 1) qa <= dia;
            if (MODE_A == 2) qa <= reada;
        end else if (cea) qa <= reada;
        if (ocea) ra <= qa;
        if (rsta) {qa, ra} <= 0;
    end
    assign doa = PIPE_A ? ra : qa;

    always @(posedge clkb) begin
        readb = 0;
        for (i = 0; i < groups(WIDTH_B); i = i + 1) begin
            word = memory[group(adb, WIDTH_B) + i];
            for (j = 0; j < groups(WIDTH_A); j = j + 1)
                if (cea && wrea && enabled(ada, WIDTH_A, j)
                    && group(ada, WIDTH_A) + j == group(adb, WIDTH_B) + i)
                    word = word ^ (part(ada, WIDTH_A) & {UNIT{1'bx}});
            readb[UNIT * i +: UNIT] = (word & part(adb, WIDTH_B)) >> shift(adb, WIDTH_B);
        end
        if (ceb && wreb) begin
            for (i = 0; i < groups(WIDTH_B); i = i + 1)
                for (j = 0; j < UNIT; j = j + 1)
                    if (enabled(adb, WIDTH_B, i) && (part(adb, WIDTH_B) >> j & 1'b1))
                        memory[group(adb, WIDTH_B) + i][j] <=
                            dib[UNIT * i + j - shift(adb, WIDTH_B)];
            if (MODE_B == 1) qb <= dib;
            if (MODE_B == 2) qb <= readb;
        end else if (ceb) qb <= readb;
        if (oceb) rb <= qb;
        if (rstb) {qb, rb} <= 0;
    end
    assign dob = PIPE_B ? rb : qb;
endmodule

module SP (
    output [31:0] DO, input [31:0] DI, input [2:0] BLKSEL, input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    parameter READ_MODE = 0, WRITE_MODE = 0, BIT_WIDTH = 32, BLK_SEL = 0, RESET_MODE = "SYNC";
    `BSRAM_INITS(256)
    gowin_bsram #(
        .UNIT(8), .WIDTH_A(BIT_WIDTH), .MODE_A(WRITE_MODE), .PIPE_A(READ_MODE),
        .INIT(`BSRAM_INIT)
    ) core (
        .clka(CLK), .cea(CE), .wrea(WRE), .rsta(RESET), .ocea(OCE), .ada(AD), .dia(DI),
        .doa(DO), .clkb(1'b0), .ceb(1'b0), .wreb(1'b0), .rstb(1'b0), .oceb(1'b0), .adb(14'd0),
        .dib(32'd0), .dob()
    );
endmodule

module SPX9 (
    output [35:0] DO, input [35:0] DI, input [2:0] BLKSEL, input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    parameter READ_MODE = 0, WRITE_MODE = 0, BIT_WIDTH = 36, BLK_SEL = 0, RESET_MODE = "SYNC";
    `BSRAM_INITS(288)
    gowin_bsram #(
        .UNIT(9), .WIDTH_A(BIT_WIDTH), .MODE_A(WRITE_MODE), .PIPE_A(READ_MODE),
        .INIT(`BSRAM_INIT)
    ) core (
        .clka(CLK), .cea(CE), .wrea(WRE), .rsta(RESET), .ocea(OCE), .ada(AD), .dia(DI),
        .doa(DO), .clkb(1'b0), .ceb(1'b0), .wreb(1'b0), .rstb(1'b0), .oceb(1'b0), .adb(14'd0),
        .dib(36'd0), .dob()
    );
endmodule

module SDPX9B (
    input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, input [13:0] ADA, ADB,
    input [2:0] BLKSELA, BLKSELB, input [35:0] DI, output [35:0] DO
);
    parameter READ_MODE = 0, BIT_WIDTH_0 = 36, BIT_WIDTH_1 = 36, BLK_SEL_0 = 0, BLK_SEL_1 = 0;
    parameter RESET_MODE = "SYNC";
    `BSRAM_INITS(288)
    gowin_bsram #(
        .UNIT(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .PIPE_B(READ_MODE),
        .INIT(`BSRAM_INIT)
    ) core (
        .clka(CLKA), .cea(CEA), .wrea(1'b1), .rsta(RESETA), .ocea(1'b1), .ada(ADA),
        .dia(DI), .doa(), .clkb(CLKB), .ceb(CEB), .wreb(1'b0), .rstb(RESETB), .oceb(OCE),
        .adb(ADB), .dib(36'd0), .dob(DO)
    );
endmodule

module DPB (
    input CLKA, CEA, CLKB, CEB, OCEA, OCEB, RESETA, RESETB, WREA, WREB, input [13:0] ADA, ADB,
    input [2:0] BLKSELA, BLKSELB, input [15:0] DIA, DIB, output [15:0] DOA, DOB
);
    parameter READ_MODE0 = 0, READ_MODE1 = 0, WRITE_MODE0 = 0, WRITE_MODE1 = 0;
    parameter BIT_WIDTH_0 = 16, BIT_WIDTH_1 = 16, BLK_SEL_0 = 0, BLK_SEL_1 = 0;
    parameter RESET_MODE = "SYNC";
    `BSRAM_INITS(256)
    wire [15:0] unuseda, unusedb;
    gowin_bsram #(
        .UNIT(8), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .MODE_A(WRITE_MODE0),
        .MODE_B(WRITE_MODE1), .PIPE_A(READ_MODE0), .PIPE_B(READ_MODE1),
        .INIT(`BSRAM_INIT)
    ) core (
        .clka(CLKA), .cea(CEA), .wrea(WREA), .rsta(RESETA), .ocea(OCEA), .ada(ADA),
        .dia({16'd0, DIA}), .doa({unuseda, DOA}), .clkb(CLKB), .ceb(CEB), .wreb(WREB), .rstb(RESETB),
        .oceb(OCEB), .adb(ADB), .dib({16'd0, DIB}), .dob({unusedb, DOB})
    );
endmodule

module DPX9B (
    input CLKA, CEA, CLKB, CEB, OCEA, OCEB, RESETA, RESETB, WREA, WREB, input [13:0] ADA, ADB,
    input [2:0] BLKSELA, BLKSELB, input [17:0] DIA, DIB, output [17:0] DOA, DOB
);
    parameter READ_MODE0 = 0, READ_MODE1 = 0, WRITE_MODE0 = 0, WRITE_MODE1 = 0;
    parameter BIT_WIDTH_0 = 18, BIT_WIDTH_1 = 18, BLK_SEL_0 = 0, BLK_SEL_1 = 0;
    parameter RESET_MODE = "SYNC";
    `BSRAM_INITS(288)
    wire [17:0] unuseda, unusedb;
    gowin_bsram #(
        .UNIT(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .MODE_A(WRITE_MODE0),
        .MODE_B(WRITE_MODE1), .PIPE_A(READ_MODE0), .PIPE_B(READ_MODE1),
        .INIT(`BSRAM_INIT)
    ) core (
        .clka(CLKA), .cea(CEA), .wrea(WREA), .rsta(RESETA), .ocea(OCEA), .ada(ADA),
        .dia({18'd0, DIA}), .doa({unuseda, DOA}), .clkb(CLKB), .ceb(CEB), .wreb(WREB), .rstb(RESETB),
        .oceb(OCEB), .adb(ADB), .dib({18'd0, DIB}), .dob({unusedb, DOB})
    );
endmodule
