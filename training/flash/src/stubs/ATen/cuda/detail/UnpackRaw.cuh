// In place of PyTorch's.
#pragma once

#include <ATen/cuda/CUDAGeneratorImpl.h>
