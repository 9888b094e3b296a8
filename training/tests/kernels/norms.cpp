// Runs the norms' own source on a processor, forward and backward, and compares with loops in double. Prints the largest
// difference in f32 and in half precision.
//
//   norms ROWS WIDTH THREADS

#include "processor.h"

#include "../../src/compute/kernels/tensors.cu"

template <class T> static double worst(unsigned rows, int width, unsigned threads) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    auto values = [&](auto like, size_t size) {
        std::vector<decltype(like)> all(size);
        for (auto &value : all) put(value, normal(random));
        return all;
    };
    size_t size = (size_t)rows * width;
    auto x = values(T{}, size), dy = values(T{}, size);
    auto weight = values(0.f, width);
    T unwritten;
    put(unwritten, NAN);
    std::vector<T> y(size, unwritten), dx(size, unwritten);
    std::vector<float> inverses(rows, NAN);
    float epsilon = 1e-6f;

    start({rows, 1}, threads, [&] { rms_norm(x.data(), weight.data(), y.data(), width, epsilon); });
    start({rows, 1}, threads, [&] {
        rms_norm_backward(x.data(), dy.data(), weight.data(), dx.data(), inverses.data(), width, epsilon);
    });

    double worst = 0;
    auto compare = [&](double found, double expected) {
        worst = std::isnan(found) ? INFINITY : std::max(worst, std::abs(found - expected));
    };
    for (unsigned row = 0; row < rows; row++) {
        auto of = [&](const std::vector<T> &all, int i) { return (double)wide(all[(size_t)row * width + i]); };
        double squares = 0, along = 0;
        for (int i = 0; i < width; i++) squares += of(x, i) * of(x, i);
        double inverse = 1 / sqrt(squares / width + epsilon);
        for (int i = 0; i < width; i++) along += weight[i] * of(dy, i) * of(x, i) * inverse / width;
        compare(inverses[row], inverse);
        for (int i = 0; i < width; i++) {
            double normed = of(x, i) * inverse;
            compare(of(y, i), normed * weight[i]);
            compare(of(dx, i), (weight[i] * of(dy, i) - normed * along) * inverse);
        }
    }
    return worst;
}

int main(int, char **arguments) {
    unsigned rows = atoi(arguments[1]), threads = atoi(arguments[3]);
    int width = atoi(arguments[2]);
    printf("%g %g\n", worst<float>(rows, width, threads), worst<bf16>(rows, width, threads));
    return 0;
}
