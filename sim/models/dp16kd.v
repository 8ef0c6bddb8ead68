// DP16KD, the block RAM of the ECP5: 18 Kbit with two ports and a register behind each.
//
// After FPGA-TN-02204 (Lattice, ECP5 and ECP5-5G Memory Usage Guide), for what netlists of ours have
// of it: one clock for both ports, no chip selects, no reset, one port at most that writes. A port is
// 1, 2, 4, 9 or 18 bits wide, and below 9 leaves every ninth bit alone; 36 bits are written through
// port A and read through port B, with the pins of both.
//
// A bit that is read while the other port writes it is unknown.

module DP16KD (
    input
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
        DIA3, DIA2, DIA1, DIA0,
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
        CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0,
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
        CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4,
        DOA3, DOA2, DOA1, DOA0,
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4,
        DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG";
    parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
    parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC", GSR = "AUTO";
    parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000";
    parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB";
    parameter [319:0]
        INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0, INITVAL_04 = 0,
        INITVAL_05 = 0, INITVAL_06 = 0, INITVAL_07 = 0, INITVAL_08 = 0, INITVAL_09 = 0,
        INITVAL_0A = 0, INITVAL_0B = 0, INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0,
        INITVAL_0F = 0, INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0,
        INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0, INITVAL_18 = 0,
        INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0, INITVAL_1C = 0, INITVAL_1D = 0,
        INITVAL_1E = 0, INITVAL_1F = 0, INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0,
        INITVAL_23 = 0, INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0,
        INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0, INITVAL_2C = 0,
        INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0, INITVAL_30 = 0, INITVAL_31 = 0,
        INITVAL_32 = 0, INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0,
        INITVAL_37 = 0, INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0,
        INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0;

    wire [17:0] dia = {
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
        DIA3, DIA2, DIA1, DIA0
    };
    wire [17:0] dib = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0
    };
    wire [13:0] ada = {
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
    };
    wire [13:0] adb = {
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
    };
    wire [20479:0] init = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
        INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32,
        INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B,
        INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
        INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D,
        INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
        INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F,
        INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
        INITVAL_00
    };

    // Groups of nine bits in a word, the first one of the word at an address, the bits of a group
    // that are the word's, and whether group i of a word is written.
    function integer groups(input integer width);
        groups = width > 9 ? width / 9 : 1;
    endfunction
    function [10:0] group(input [13:0] address, input integer width);
        group = address[13:3] & -groups(width);
    endfunction
    function [8:0] part(input [13:0] address, input integer width);
        part = width < 9 ? ((9'd1 << width) - 1) << (address & 7 & -width) : 9'h1ff;
    endfunction
    function enabled(input [13:0] address, input integer width, input integer i);
        enabled = width > 9 ? address[i] : 1'b1;
    endfunction

    reg [8:0] memory [0:2047];
    reg [8:0] word;
    reg [17:0] qa, qb, ra, rb;
    reg [35:0] read;
    integer i, j;
    initial begin
        for (i = 0; i < 2048; i = i + 1) memory[i] = init[20 * (i >> 1) + 9 * (i & 1) +: 9];
        {qa, qb, ra, rb} = 0;
    end

    always @(posedge CLKA) begin
        read = 0;
        for (i = 0; i < groups(DATA_WIDTH_A); i = i + 1) begin
            word = memory[group(ada, DATA_WIDTH_A) + i];
            for (j = 0; j < groups(DATA_WIDTH_B); j = j + 1)
                if (CEB && WEB && enabled(adb, DATA_WIDTH_B, j)
                    && group(adb, DATA_WIDTH_B) + j == group(ada, DATA_WIDTH_A) + i)
                    word = word ^ (part(adb, DATA_WIDTH_B) & 9'hx);
            read[9 * i +: 9] = (word & part(ada, DATA_WIDTH_A))
                >> (DATA_WIDTH_A < 9 ? ada & 7 & -DATA_WIDTH_A : 0);
        end
        if (CEA && WEA) begin
            for (i = 0; i < groups(DATA_WIDTH_A); i = i + 1)
                if (enabled(ada, DATA_WIDTH_A, i))
                    memory[group(ada, DATA_WIDTH_A) + i] <=
                        (memory[group(ada, DATA_WIDTH_A) + i] & ~part(ada, DATA_WIDTH_A))
                        | (({dib, dia} >> 9 * i << (DATA_WIDTH_A < 9 ? ada & 7 & -DATA_WIDTH_A : 0))
                           & part(ada, DATA_WIDTH_A));
            if (WRITEMODE_A == "READBEFOREWRITE") qa <= read;
            if (WRITEMODE_A == "WRITETHROUGH") qa <= dia;
        end else if (CEA && DATA_WIDTH_B != 36) qa <= read;
        if (OCEA && DATA_WIDTH_B != 36) ra <= qa;
    end

    always @(posedge CLKB) begin
        read = 0;
        for (i = 0; i < groups(DATA_WIDTH_B); i = i + 1) begin
            word = memory[group(adb, DATA_WIDTH_B) + i];
            for (j = 0; j < groups(DATA_WIDTH_A); j = j + 1)
                if (CEA && WEA && enabled(ada, DATA_WIDTH_A, j)
                    && group(ada, DATA_WIDTH_A) + j == group(adb, DATA_WIDTH_B) + i)
                    word = word ^ (part(ada, DATA_WIDTH_A) & 9'hx);
            read[9 * i +: 9] = (word & part(adb, DATA_WIDTH_B))
                >> (DATA_WIDTH_B < 9 ? adb & 7 & -DATA_WIDTH_B : 0);
        end
        if (CEB && WEB) begin
            for (i = 0; i < groups(DATA_WIDTH_B); i = i + 1)
                if (enabled(adb, DATA_WIDTH_B, i))
                    memory[group(adb, DATA_WIDTH_B) + i] <=
                        (memory[group(adb, DATA_WIDTH_B) + i] & ~part(adb, DATA_WIDTH_B))
                        | ((dib >> 9 * i << (DATA_WIDTH_B < 9 ? adb & 7 & -DATA_WIDTH_B : 0))
                           & part(adb, DATA_WIDTH_B));
            if (WRITEMODE_B == "READBEFOREWRITE") qb <= read;
            if (WRITEMODE_B == "WRITETHROUGH") qb <= dib;
        end else if (CEB) begin
            qb <= DATA_WIDTH_B == 36 ? read[35:18] : read;
            if (DATA_WIDTH_B == 36) qa <= read;
        end
        if (OCEB) begin
            rb <= qb;
            if (DATA_WIDTH_B == 36) ra <= qa;
        end
    end

    assign {
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4,
        DOA3, DOA2, DOA1, DOA0
    } = REGMODE_A == "OUTREG" ? ra : qa;
    assign {
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4,
        DOB3, DOB2, DOB1, DOB0
    } = REGMODE_B == "OUTREG" ? rb : qb;
endmodule
