#!/usr/bin/env python3
"""Prints the polynomial and rational coefficients that megabyte.c uses for exp and erf, and their
worst error when evaluated in float32. Plain Python; run by hand when a constant is to be changed
(the bits of every logit change too).

exp(r) on |r| <= ln2/2: 1 + r + r^2 p(r), p of degree 4.
erf(z) on |z| <= 3.92: z P(z^2) / Q(z^2), degrees 5 and 5.
Both by iteratively re-weighted least squares (Lawson) at Chebyshev points, solved in 60-digit
decimals."""
import math, struct
from decimal import Decimal as D, getcontext
getcontext().prec = 60

def f32(x): return struct.unpack('<f', struct.pack('<f', x))[0]

def solve(rows, rhs):
    n = len(rows)
    a = [r[:] + [b] for r, b in zip(rows, rhs)]
    for i in range(n):
        p = max(range(i, n), key=lambda j: abs(a[j][i]))
        a[i], a[p] = a[p], a[i]
        for j in range(n):
            if j != i:
                m = a[j][i] / a[i][i]
                if m: a[j] = [u - m * v for u, v in zip(a[j], a[i])]
    return [a[i][n] / a[i][i] for i in range(n)]

def least_squares(basis, target, weight):
    n = len(basis[0])
    rows = [[sum(w * b[i] * b[j] for b, w in zip(basis, weight)) for j in range(n)]
            for i in range(n)]
    return solve(rows, [sum(w * b[i] * t for b, t, w in zip(basis, target, weight))
                        for i in range(n)])

def dexp(x):
    s = t = D(1)
    for i in range(1, 60): t = t * x / i; s += t
    return s

def derf(x):
    s = t = x
    for i in range(1, 300): t = -t * x * x / i; s += t / (2 * i + 1)
    return s * 2 / D('1.7724538509055160272981674833411451827975494561223871282138077898529')

def fit_exp(degree=4, points=120):
    half = D(2).ln() / 2 * D('1.01')
    xs = [half * D(math.cos(math.pi * (i + .5) / points)) for i in range(points)]
    basis = [[x * x * x ** j for j in range(degree + 1)] for x in xs]
    target = [dexp(x) - 1 - x for x in xs]
    w = [D(1)] * points
    for _ in range(30):
        c = least_squares(basis, target, w)
        e = [abs(sum(u * v for u, v in zip(b, c)) - t) for b, t in zip(basis, target)]
        w = [u * v for u, v in zip(w, e)]; s = sum(w); w = [u / s for u in w]
    return [float(x) for x in c]

def fit_erf(np=5, nq=5, limit=D('3.92'), points=160):
    us = [limit * limit * (1 - D(math.cos(math.pi * (i + .5) / points))) / 2 for i in range(points)]
    zs = [u.sqrt() for u in us]
    target = [derf(z) / z for z in zs]
    q = [D(1)] * points
    w = [D(1)] * points
    for _ in range(40):                # P(u) - t (Q(u) - 1) = t, divided by the last Q
        basis = [[u ** j for j in range(np + 1)] + [-t * u ** j
                for j in range(1, nq + 1)] for u, t in zip(us, target)]
        c = least_squares(basis, target, [a * z * z / (b * b) for a, b, z in zip(w, q, zs)])
        q = [1 + sum(c[np + j] * u ** j for j in range(1, nq + 1)) for u in us]
        e = [abs(sum(c[j] * u ** j for j in range(np + 1)) / b - t) * z
                for u, b, t, z in zip(us, q, target, zs)]
        w = [u * (v + D('1e-14')) for u, v in zip(w, e)]; s = sum(w); w = [u / s for u in w]
    return [float(x) for x in c[:np + 1]], [1.0] + [float(x) for x in c[np + 1:]]

if __name__ == '__main__':
    c = [f32(x) for x in fit_exp()]
    worst = 0
    for i in range(-34600, 34601, 7):
        r = f32(i * 1e-5); p = c[4]
        for k in (3, 2, 1, 0): p = f32(f32(p * r) + c[k])
        y = f32(f32(f32(f32(p * r) * r) + r) + 1)
        worst = max(worst, abs(y / math.exp(r) - 1))
    print('exp', ', '.join('%.9ef' % x for x in c), ' relative error %.2g' % worst)
    P, Q = fit_erf()
    P = [f32(x) for x in P]; Q = [f32(x) for x in Q]
    worst = 0
    for i in range(0, 39200, 5):
        z = f32(i * 1e-4); u = f32(z * z); p = P[-1]; q = Q[-1]
        for k in reversed(P[:-1]): p = f32(f32(p * u) + k)
        for k in reversed(Q[:-1]): q = f32(f32(q * u) + k)
        worst = max(worst, abs(f32(f32(z * p) / q) - math.erf(z)))
    print('erf P', ', '.join('%.9ef' % x for x in P))
    print('erf Q', ', '.join('%.9ef' % x for x in Q))
    print('erf absolute error %.2g' % worst)
