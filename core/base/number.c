#include "core/base/number.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The daemon never calls setlocale, so printf and strtod use the C locale. */

/* "1e-05" -> "1e-5", "1e+06" -> "1e+6": printf pads exponents to two digits. */
static int trim_exponent(char *text, int length) {
  char *e = strchr(text, 'e');
  if (!e) return length;
  char *digits = e + 2, *p = digits;
  while (*p == '0' && p[1]) p++;
  memmove(digits, p, strlen(p) + 1);
  return (int)strlen(text);
}

/* Up to FLT_DIG (DBL_DIG) significant digits every decimal survives the way into binary and back, so %g
 * with that precision, which drops trailing zeros, already prints the shortest such text; only longer ones
 * must be tried one by one. Subnormals have fewer digits, so they are tried from one. */
int number_f32(float value, char out[24]) {
  int from = fabsf(value) < FLT_MIN ? 1 : FLT_DIG;
  int n = 0;
  for (int digits = from; digits <= 9; digits++) {
    n = snprintf(out, 24, "%.*g", digits, (double)value);
    if (strtof(out, NULL) == value) break;
  }
  return trim_exponent(out, n);
}

int number_f64(double value, char out[32]) {
  int from = fabs(value) < DBL_MIN ? 1 : DBL_DIG;
  int n = 0;
  for (int digits = from; digits <= 17; digits++) {
    n = snprintf(out, 32, "%.*g", digits, value);
    if (strtod(out, NULL) == value) break;
  }
  return trim_exponent(out, n);
}

bool number_parse_int(const char *text, int64_t *out) {
  const char *p = text + (*text == '-' || *text == '+');
  if (*p < '0' || *p > '9') return false;
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (errno || *end) return false;
  *out = value;
  return true;
}

bool number_parse_double(const char *text, double *out) {
  if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !isfinite(value)) return false;
  *out = value;
  return true;
}
