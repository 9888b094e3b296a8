// Runs the decoding kernels' own source on a processor, and compares with loops in double.
//
//   decode KV_HEADS CAPACITY SLICES POSITION…     with HEAD_DIM and GROUP given when it is compiled

#include "processor.h"

#include "../../src/compute/kernels/tensors.cu"
#include "../../src/compute/kernels/decode.cu"

int main(int count, char **arguments) {
    int kv_heads = atoi(arguments[1]), capacity = atoi(arguments[2]), slices = atoi(arguments[3]);
    std::vector<unsigned> positions;
    for (int i = 4; i < count; i++) positions.push_back(atoi(arguments[i]));
    int rows = positions.size() * kv_heads;

    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    auto values = [&](size_t size) {
        std::vector<bf16> all(size);
        for (auto &value : all) put(value, normal(random));
        return all;
    };
    auto q = values((size_t)rows * GROUP * HEAD_DIM), keys = values((size_t)rows * capacity * HEAD_DIM);
    auto cached = values(keys.size()), new_keys = values(rows * HEAD_DIM), new_values = values(rows * HEAD_DIM);
    // What is not written stays no number, and is found.
    std::vector<bf16> out(q.size(), bf16{0x7fc0});
    std::vector<float> parts((size_t)rows * slices * GROUP * (HEAD_DIM + 2), NAN);
    float scale = 0.1f;

    long long eights = rows * LANES;
    start({(unsigned)(eights + 255) / 256, 1}, 256, [&] {
        store_tokens(new_keys.data(), new_values.data(), keys.data(), cached.data(), positions.data(), eights, kv_heads,
                     capacity);
    });
    start({(unsigned)rows, (unsigned)slices}, 256, [&] {
        decode_attention(q.data(), keys.data(), cached.data(), positions.data(), out.data(), parts.data(), kv_heads,
                         capacity, (capacity + slices - 1) / slices, scale);
    });
    eights *= GROUP;
    if (slices > 1)
        start({(unsigned)(eights + 255) / 256, 1}, 256, [&] { join_slices(parts.data(), out.data(), slices, eights); });

    double worst = 0;
    for (int head = 0; head < rows * GROUP; head++) {
        int row = head / GROUP, last = positions[row / kv_heads];
        auto of = [&](const std::vector<bf16> &cache, int at, int i) {
            return (double)wide(cache[((size_t)row * capacity + at) * HEAD_DIM + i]);
        };
        std::vector<double> weights(last + 1);
        double sum = 0;
        for (int at = 0; at <= last; at++) {
            double score = 0;
            for (int i = 0; i < HEAD_DIM; i++) score += wide(q[head * HEAD_DIM + i]) * of(keys, at, i);
            sum += weights[at] = exp(score * scale);
        }
        for (int i = 0; i < HEAD_DIM; i++) {
            double expected = 0;
            for (int at = 0; at <= last; at++) expected += weights[at] / sum * of(cached, at, i);
            double found = wide(out[head * HEAD_DIM + i]);
            worst = std::isnan(found) ? INFINITY : std::max(worst, std::abs(found - expected));
            if (of(keys, last, i) != wide(new_keys[row * HEAD_DIM + i])) worst = INFINITY;
            if (of(cached, last, i) != wide(new_values[row * HEAD_DIM + i])) worst = INFINITY;
        }
    }
    printf("%g\n", worst);
    return 0;
}
