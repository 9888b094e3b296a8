// In place of PyTorch's checks: a call that fails throws its code, which shim.cu catches before it gets to Rust.
#pragma once

// Included here because the kernels' own headers use them without.
#include <cstdio>
#include <cstdlib>

#include <cuda_runtime_api.h>

namespace brevity_flash {

struct Failure {
    cudaError_t code;
};

inline void check(cudaError_t code) {
    if (code != cudaSuccess) {
        throw Failure{code};
    }
}

}  // namespace brevity_flash

#define C10_CUDA_CHECK(call) ::brevity_flash::check(call)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() ::brevity_flash::check(cudaGetLastError())
