// What CUDA gives a kernel, made of a processor's threads and barriers: one thread for each of a block's, blocks one after
// another. It says nothing of speed, and nothing of what a GPU does differently, such as memory that two blocks write.

#pragma once

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using std::min;

struct Dimensions {
    unsigned x, y;
};
static thread_local Dimensions threadIdx, blockIdx;
static Dimensions blockDim, gridDim;

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __align__(bytes) alignas(bytes)
// Blocks run one after another, so a block's memory may be everybody's.
#define __shared__ static
// The one instruction written out: rounds x to the nearest bf16, ties to even.
#define asm(...) round_to_even(to.bits, x)

static void round_to_even(unsigned short &bits, float x) {
    unsigned all;
    memcpy(&all, &x, 4);
    bits = (all + 0x7fff + (all >> 16 & 1)) >> 16;
}

static float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Names that C libraries may have too.
#define rsqrtf(x) (1 / sqrtf(x))
#define __expf(x) expf(x)

using Barrier = std::unique_ptr<std::barrier<>>;
static Barrier block;
static std::vector<Barrier> warps;

static void __syncthreads() { block->arrive_and_wait(); }

static float __shfl_xor_sync(unsigned, float x, int step) {
    static float of[32][32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    of[warp][lane] = x;
    warps[warp]->arrive_and_wait();
    float other = of[warp][lane ^ step];
    warps[warp]->arrive_and_wait();
    return other;
}

static void start(Dimensions grid, unsigned threads, const std::function<void()> &kernel) {
    gridDim = grid;
    blockDim = {threads, 1};
    for (unsigned y = 0; y < grid.y; y++)
        for (unsigned x = 0; x < grid.x; x++) {
            block = std::make_unique<std::barrier<>>(threads);
            warps.clear();
            for (unsigned warp = 0; warp < threads / 32; warp++) warps.push_back(std::make_unique<std::barrier<>>(32));
            std::vector<std::thread> all;
            for (unsigned thread = 0; thread < threads; thread++)
                all.emplace_back([=] {
                    threadIdx = {thread, 0};
                    blockIdx = {x, y};
                    kernel();
                });
            for (auto &one : all) one.join();
        }
}
