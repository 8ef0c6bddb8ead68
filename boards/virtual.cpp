// A board's whole top, simulated: bytes in on its serial line, bytes out.

#include <deque>
#include <memory>

#include "Vboard.h"
#include "verilated.h"

namespace {

struct Board {
    VerilatedContext context;
    std::unique_ptr<Vboard> top;
    const unsigned divisor;
    std::deque<unsigned char> waiting;
    uint64_t clocks = 0;
    // The line to the board: bits that are left, lowest first, and the clock of the next one.
    unsigned out_bits = 0;
    uint64_t out_at = 0;
    // The line from the board.
    unsigned in_left = 0;
    unsigned in_bits = 0;
    uint64_t in_at = 0;

    Board(unsigned divisor, unsigned seed) : divisor(divisor) {
        context.randReset(2);
        context.randSeed(static_cast<int>(seed));
        power();
    }

    // Cuts the power, and lets it come again.
    void power() {
        top = std::make_unique<Vboard>(&context);
        top->clk = 0;
        top->rx = 1;
        for (int i = 0; i < 8; i++) clock();
    }

    void clock() {
        top->eval();
        top->clk = 1;
        top->eval();
        top->clk = 0;
    }

    void send() {
        if (clocks < out_at) return;
        if (out_bits == 0) {
            if (waiting.empty()) return;
            out_bits = 0x600u | waiting.front() << 1;  // a mark above the stop bit
            waiting.pop_front();
        }
        top->rx = out_bits & 1;
        out_bits >>= 1;
        if (out_bits == 1) out_bits = 0;
        out_at = clocks + divisor;
    }

    // Returns a byte, or -1.
    int receive() {
        if (in_left == 0) {
            if (top->tx) return -1;
            in_left = 9;
            in_bits = 0;
            in_at = clocks + divisor + divisor / 2;
        } else if (clocks == in_at) {
            in_left--;
            in_at += divisor;
            if (in_left == 0) return top->tx ? static_cast<int>(in_bits) : -1;
            in_bits = in_bits >> 1 | (top->tx ? 0x80u : 0u);
        }
        return -1;
    }
};

}  // namespace

extern "C" {

Board* board_make(unsigned divisor, unsigned seed) { return new Board(divisor, seed); }

void board_free(Board* board) { delete board; }

// Runs for so many clocks, up to the end of a packet, or until `room` bytes have come. Bytes that
// are not sent yet are kept. Returns how many have come.
unsigned board_run(Board* board, const unsigned char* bytes, unsigned count, unsigned char* came,
                   unsigned room, uint64_t clocks) {
    board->waiting.insert(board->waiting.end(), bytes, bytes + count);
    unsigned done = 0;
    for (uint64_t end = board->clocks + clocks; board->clocks < end && done < room;) {
        board->send();
        board->clock();
        board->clocks++;
        const int byte = board->receive();
        if (byte >= 0) came[done++] = static_cast<unsigned char>(byte);
        if (byte == 0) break;
    }
    return done;
}

uint64_t board_clocks(const Board* board) { return board->clocks; }

unsigned board_waiting(const Board* board) { return board->waiting.size(); }

// Lamps: alive, fault, session.
unsigned board_lamps(const Board* board) {
    return board->top->alive | board->top->fault << 1 | board->top->session << 2;
}

void board_reset(Board* board) { board->power(); }
}
