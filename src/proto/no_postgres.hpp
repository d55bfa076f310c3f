// The layer guard: the last include of every .cpp in src/proto and src/core.
//
// Owns the refusal to compile a file that came to see PostgreSQL or libuv, by whatever header. It has no
// include guard on purpose: each place that includes it is checked anew. Knows nothing else.
#ifdef POSTGRES_H
#error "this layer must not include postgres.h: only src/postgres does"
#endif

#ifdef UV_H
#error "this layer must not include uv.h: only src/net and src/postgres do"
#endif
