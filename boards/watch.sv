// Clock a board's whole top and print which LED was lit at which clock (an LED is lit by 0).

module watch;
    int clocks = 0;
    bit clock = 0, green = 0, red = 0;
    wire green_n, red_n;

    `TOP top (.clk12_0__io(clock), .led_g_0__io(green_n), .led_r_0__io(red_n));

    always #5 clock = !clock;

    always @(negedge clock) begin
        clocks <= clocks + 1;
        if (green_n === 1'b0 && !green) begin
            green <= 1;
            $display("passed %0d", clocks);
        end
        if (red_n === 1'b0 && !red) begin
            red <= 1;
            $display("failed %0d", clocks);
        end
        if (clocks == `CLOCKS) $finish;
    end
endmodule
