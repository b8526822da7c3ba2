// The products of matrices that CuPy asks cuBLAS for, and a count of them. Matrices are column by column.
#include <cstddef>
#include <vector>

static long long products;

extern "C" long long cpu_products() {  // since the last call
  long long found = products;
  products = 0;
  return found;
}

template <class T>
static void multiply(bool flip_a, bool flip_b, int m, int n, int k, const void* alpha, const void* a_data, int lda,
                     const void* b_data, int ldb, const void* beta, void* c_data, int ldc) {
  const T *a = (const T*)a_data, *b = (const T*)b_data;
  T scale = *(const T*)alpha, before = *(const T*)beta;
  std::vector<T> flipped;
  if (flip_a) {
    flipped.resize((size_t)m * k);
    for (int i = 0; i < m; i++)
      for (int p = 0; p < k; p++) flipped[i + (size_t)p * m] = a[p + (size_t)i * lda];
    a = flipped.data(), lda = m;
  }
  for (int j = 0; j < n; j++) {
    T* c = (T*)c_data + (size_t)j * ldc;
    for (int i = 0; i < m; i++) c[i] = before == 0 ? 0 : before * c[i];
    for (int p = 0; p < k; p++) {
      const T *column = a + (size_t)p * lda, factor = scale * (flip_b ? b[j + (size_t)p * ldb] : b[p + (size_t)j * ldb]);
      for (int i = 0; i < m; i++) c[i] += factor * column[i];
    }
  }
}

static int multiply(int type, int flip_a, int flip_b, int m, int n, int k, const void* alpha, const void* a, int lda,
                    const void* b, int ldb, const void* beta, void* c, int ldc) {
  if (type != 0 && type != 1) return 15;  // CUDA_R_32F, CUDA_R_64F; else CUBLAS_STATUS_NOT_SUPPORTED
  (type ? multiply<double> : multiply<float>)(flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  return 0;
}

template <class T>
static int batch(int flip_a, int flip_b, int m, int n, int k, const T* alpha, const T* const a[], int lda,
                 const T* const b[], int ldb, const T* beta, T* const c[], int ldc, int count) {
  products++;
  for (int i = 0; i < count; i++) multiply<T>(flip_a, flip_b, m, n, k, alpha, a[i], lda, b[i], ldb, beta, c[i], ldc);
  return 0;
}

extern "C" {
int cublasCreate_v2(void** handle) { *handle = &products; return 0; }
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void*, void*) { return 0; }
int cublasGetStream_v2(void*, void**) { return 0; }
int cublasSetMathMode(void*, int) { return 0; }
int cublasGetMathMode(void*, int*) { return 0; }
int cublasSetPointerMode_v2(void*, int) { return 0; }
int cublasGetPointerMode_v2(void*, int*) { return 0; }
int cublasGemmEx(void*, int flip_a, int flip_b, int m, int n, int k, const void* alpha, const void* a, int, int lda,
                 const void* b, int, int ldb, const void* beta, void* c, int type, int ldc, int, int) {
  products++;
  return multiply(type, flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasSgemmEx(void*, int flip_a, int flip_b, int m, int n, int k, const float* alpha, const void* a, int, int lda,
                  const void* b, int, int ldb, const float* beta, void* c, int type, int ldc) {
  products++;
  return multiply(type, flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasDgemm_v2(void*, int flip_a, int flip_b, int m, int n, int k, const double* alpha, const double* a, int lda,
                   const double* b, int ldb, const double* beta, double* c, int ldc) {
  products++;
  return multiply(1, flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasGemmStridedBatchedEx(void*, int flip_a, int flip_b, int m, int n, int k, const void* alpha, const void* a, int,
                               int lda, long long step_a, const void* b, int, int ldb, long long step_b, const void* beta,
                               void* c, int type, int ldc, long long step_c, int count, int, int) {
  products++;
  size_t size = type == 0 ? 4 : 8;
  for (int i = 0; i < count; i++)
    if (int wrong = multiply(type, flip_a, flip_b, m, n, k, alpha, (const char*)a + i * step_a * size, lda,
                             (const char*)b + i * step_b * size, ldb, beta, (char*)c + i * step_c * size, ldc)) return wrong;
  return 0;
}
int cublasSgemmBatched(void*, int flip_a, int flip_b, int m, int n, int k, const float* alpha, const float* const a[],
                       int lda, const float* const b[], int ldb, const float* beta, float* const c[], int ldc, int count) {
  return batch(flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count);
}
int cublasDgemmBatched(void*, int flip_a, int flip_b, int m, int n, int k, const double* alpha, const double* const a[],
                       int lda, const double* const b[], int ldb, const double* beta, double* const c[], int ldc, int count) {
  return batch(flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count);
}
}
