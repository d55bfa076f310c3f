# pgpool - how it is built.  `make help` lists the targets.
#
# Two libraries come from one tree:
#   pgpool.so         src/postgres/*/*.cpp except src/postgres/worker.  It is preloaded, so every backend carries it: no
#                     exceptions, no RTTI, linked with the C driver, and the link fails if libstdc++ is needed.
#   pgpool_worker.so  the other folders of src, and src/postgres/worker.  Only the network workers load it.
# PGXS builds one library of objects (MODULE_big), so both have rules here; PGXS installs the control and
# SQL files and tells where things go.
#
# Everything that is built lands in $(BUILD); `make BUILD=/elsewhere` keeps two builds of a tree apart.
# Nothing outside $(BUILD) is written, except by install and uninstall, which act on the PostgreSQL of PG_CONFIG.

BUILD      ?= build
PG_CONFIG  ?= pg_config
# one spelling of the place, or the dependency files of two runs would not match
override BUILD := $(patsubst $(CURDIR)/%,%,$(abspath $(BUILD)))
export BUILD PG_CONFIG

EXTENSION   = pgpool
# the control file is the one place that has the version
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" pgpool.control 2>/dev/null)
DATA        = $(wildcard sql/pgpool--*--*.sql)
DATA_built  = $(BUILD)/sql/pgpool--$(EXTVERSION).sql

# ---------------------------------------------------------------- PGXS
# These targets work on a machine without PostgreSQL: they install what they need, or need none of it.
NO_PG_GOALS = help setup demo demo-stop check check-core check-isolation bench bench-only installcheck pgtap tap unit simulate coverage fuzz fuzz-replay \
              docs-tables docs-check layercheck format format-check tidy shellcheck tools dist clean distclean compile-17 compile-18
HAVE_PG    := $(shell command -v $(PG_CONFIG) 2>/dev/null)
PG_VERSION := $(if $(HAVE_PG),$(shell $(PG_CONFIG) --version))
PG_MAJOR   := $(shell echo '$(PG_VERSION)' | sed -n 's/^[^0-9]*\([0-9]*\).*/\1/p')

all:

ifneq ($(filter-out $(NO_PG_GOALS),$(or $(MAKECMDGOALS),all)),)
PGXS       := $(if $(HAVE_PG),$(wildcard $(shell $(PG_CONFIG) --pgxs)))
ifeq ($(PGXS),)
$(error PG_CONFIG=$(PG_CONFIG) is not found or has no PGXS: install postgresql-server-dev-N (make setup does), or give PG_CONFIG=/path/to/pg_config)
endif
ifneq ($(shell test $(PG_MAJOR) -ge 15 && echo yes),yes)
$(error pgpool needs PostgreSQL 15 or later; PG_CONFIG=$(PG_CONFIG) is $(PG_VERSION))
endif
# the bitcode of a pooler is of no use, and the clang that the server names may not know C++17
override with_llvm := no
NO_INSTALLCHECK = 1
include $(PGXS)
endif

# ---------------------------------------------------------------- compilers and flags
ifeq ($(origin CXX),default)
CXX = g++
endif
ifeq ($(origin CC),default)
CC = gcc
endif
PKG_CONFIG ?= pkg-config
OPTFLAGS   ?= -O2 -g
WARNINGS    = -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wno-missing-field-initializers \
              $(if $(findstring clang,$(CXX)),-Wno-unknown-warning-option -Wglobal-constructors -Wexit-time-destructors)
# lazy, so that targets which need no library do not ask for it
LIB_CFLAGS  = $(shell $(PKG_CONFIG) --cflags libuv openssl)
WORKER_LIBS = $(shell $(PKG_CONFIG) --libs libuv openssl)
COMMON      = -std=c++17 $(OPTFLAGS) $(WARNINGS) $(if $(WERROR),-Werror) -fno-strict-aliasing -fwrapv \
              -fstack-protector-strong -D_GNU_SOURCE -DPGPOOL_VERSION='"$(EXTVERSION)"' -Isrc
DEPS        = -MMD -MP
# -isystem, not -I: the headers of the server are not ours to warn about.  Hidden symbols need PGDLLEXPORT to work: since 16.
SERVER_INC  = -isystem $(shell $(PG_CONFIG) --includedir-server) \
              $(if $(filter-out 15,$(PG_MAJOR)),-fvisibility=hidden)
POOL_FLAGS  = $(COMMON) -fPIC -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-asynchronous-unwind-tables $(SERVER_INC)
NET_FLAGS   = $(COMMON) -fPIC -fno-omit-frame-pointer $(LIB_CFLAGS)
WORKER_FLAGS= $(NET_FLAGS) $(SERVER_INC)
LINK_FLAGS  = -shared -Wl,-z,relro -Wl,-z,now -Wl,--as-needed

# ---------------------------------------------------------------- the two libraries
# what knows neither PostgreSQL nor libuv
PURE        = src/region/*.cpp src/proto/*.cpp src/core/*/*.cpp
objects     = $(patsubst src/%.cpp,$(BUILD)/obj/%.o,$(sort $(wildcard $(1))))
WORKER_OBJS = $(call objects,src/postgres/worker/*.cpp)
POOL_OBJS   = $(filter-out $(WORKER_OBJS),$(call objects,src/postgres/*/*.cpp))
# the grammar is asked in workers and in backends: built as for these, which is the stricter of the two
BOTH_OBJS   = $(call objects,src/postgres/base/grammar*.cpp)
NET_OBJS    = $(call objects,$(PURE) src/net/*.cpp)
LIBRARIES   = $(BUILD)/pgpool.so $(BUILD)/pgpool_worker.so

all: libs $(DATA_built)
libs: $(LIBRARIES)

# Objects are built again when compiler, flags or the server's version change (WERROR counts as a flag).
STAMP_TEXT := $(CXX) $(OPTFLAGS) WERROR=$(WERROR) version=$(EXTVERSION) $(PG_VERSION)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); echo '$(STAMP_TEXT)' | cmp -s - $@ || echo '$(STAMP_TEXT)' >$@
FORCE:

compile = @mkdir -p $(@D); echo '  CXX   $<'; $(CXX) $(1) $(DEPS) -c -o $@ $<

$(BUILD)/obj/postgres/%.o: src/postgres/%.cpp $(BUILD)/flags
	$(call compile,$(POOL_FLAGS))
$(BUILD)/obj/postgres/worker/%.o: src/postgres/worker/%.cpp $(BUILD)/flags
	$(call compile,$(WORKER_FLAGS))
$(BUILD)/obj/%.o: src/%.cpp $(BUILD)/flags
	$(call compile,$(NET_FLAGS))

# A library with a symbol that nobody defines links, and fails in the server; so look right here.
undefined = nm -D --undefined-only $@ | awk '{print $$2}' | grep -E '$(1)' | c++filt | sort -u >$@.undefined; \
	if [ -s $@.undefined ]; then echo "$@: $(2):" >&2; sed 's/^/  /' $@.undefined >&2; rm -f $@ $@.undefined; exit 1; fi; \
	rm -f $@.undefined

$(BUILD)/pgpool.so: $(POOL_OBJS)
	@mkdir -p $(@D); echo '  LINK  $@'
	@$(CC) $(LINK_FLAGS) -o $@ $^ $(LDFLAGS_EXTRA)
	@$(call undefined,^(_Z|__cxa_[^f]|__gxx_),these need libstdc++ or have no definition; the preloaded library may use neither)
$(BUILD)/pgpool_worker.so: $(NET_OBJS) $(WORKER_OBJS) $(BOTH_OBJS)
	@mkdir -p $(@D); echo '  LINK  $@'
	@$(CXX) $(LINK_FLAGS) -o $@ $^ $(WORKER_LIBS) $(LDFLAGS_EXTRA)
	@$(call undefined,^_ZN?K?[0-9]*6pgpool,these are declared and used but not defined in any source file)

# What repeats the lists of src/region is made by a program of the build's own.  It knows no flags of the libraries, so
# that a script may make it without building them anew.
GENERATE    = $(BUILD)/sql/generate
DOCS_TABLES = docs/reference.md
$(GENERATE): sql/generate.cpp
	@mkdir -p $(@D); echo '  CXX   $<'; $(CXX) -std=c++17 -O1 $(WARNINGS) -Isrc $(DEPS) -MF $@.d -o $@ $<
$(BUILD)/sql/pgpool--$(EXTVERSION).sql: sql/pgpool.sql.in $(GENERATE) pgpool.control
	@echo '  SQL   $@'; $(GENERATE) sql $< >$@
$(BUILD)/%.tables: % $(GENERATE) FORCE
	@mkdir -p $(@D); $(GENERATE) docs $< >$@
docs-tables: $(DOCS_TABLES:%=$(BUILD)/%.tables)
	@for d in $(DOCS_TABLES); do cmp -s $(BUILD)/$$d.tables $$d || { cp $(BUILD)/$$d.tables $$d; echo "  DOC   $$d"; }; done
docs-check: $(DOCS_TABLES:%=$(BUILD)/%.tables)
	@for d in $(DOCS_TABLES); do diff -u $$d $(BUILD)/$$d.tables || { echo "$$d is not what make docs-tables makes" >&2; exit 1; }; done

install: install-libraries
install-libraries: $(LIBRARIES)
	@mkdir -p '$(DESTDIR)$(pkglibdir)'
	install -c -m 755 $(LIBRARIES) '$(DESTDIR)$(pkglibdir)/'
uninstall: uninstall-libraries
uninstall-libraries:
	rm -f $(addprefix '$(DESTDIR)$(pkglibdir)'/,$(notdir $(LIBRARIES)))

clean: clean-build
clean-build:
	@if [ -d $(BUILD)/demo ]; then dev/demo.sh stop || true; fi
	rm -rf $(BUILD)
distclean: clean

# ---------------------------------------------------------------- unit tests, fuzzers, tools: no server needed
SANITIZE    = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TEST_FLAGS  = -std=c++17 -g -O1 $(WARNINGS) $(if $(WERROR),-Werror) -D_GNU_SOURCE -D_GLIBCXX_ASSERTIONS \
              -DPGPOOL_VERSION='"$(EXTVERSION)"' -Isrc -Itest
pure_objects= $(patsubst %.cpp,$(BUILD)/$(1)/%.o,$(sort $(wildcard $(PURE))))
UNIT_OBJS   = $(patsubst %.cpp,$(BUILD)/san/%.o,$(sort $(wildcard test/unit/*.cpp test/net/*.cpp src/net/*.cpp)))
UNIT_FILTER ?= *

$(BUILD)/san/%.o: %.cpp $(BUILD)/flags
	$(call compile,$(TEST_FLAGS) $(SANITIZE))
# The tests themselves are not what is looked at: without optimisation and UBSan they build in an eighth of the time.
$(BUILD)/san/test/unit/%.o: test/unit/%.cpp $(BUILD)/flags
	$(call compile,$(TEST_FLAGS) -O0 -fsanitize=address -fno-omit-frame-pointer)
$(BUILD)/unit/run: $(UNIT_OBJS) $(call pure_objects,san)
	@mkdir -p $(@D); echo '  LINK  $@'
	@$(CXX) $(SANITIZE) -o $@ $^ -lgtest_main -lgtest $(WORKER_LIBS) -ldl -lpthread
unit-build: $(if $(UNIT_OBJS),$(BUILD)/unit/run)
unit: unit-build
	@if [ -x $(BUILD)/unit/run ]; then $(BUILD)/unit/run --gtest_brief=$(if $(VERBOSE),0,1) --gtest_filter='$(UNIT_FILTER)'; \
	else echo 'unit: there is no test/unit/*.cpp'; fi

# The simulator without sanitizers: ten times as many schedules in the same time.  Each job takes a range of seeds.
SIM_SCHEDULES ?= 100000
SIM_SEED     ?= 1
SIM_JOBS     ?= $(shell nproc)
$(BUILD)/fast/%.o: %.cpp $(BUILD)/flags
	$(call compile,$(TEST_FLAGS) -O2)
$(BUILD)/simulator/run: $(BUILD)/fast/test/unit/simulator_test.o $(call pure_objects,fast)
	@mkdir -p $(@D); echo '  LINK  $@'; $(CXX) -o $@ $^ -lgtest_main -lgtest -lcrypto -lpthread
simulate: $(BUILD)/simulator/run
	@dev/simulate.sh $< $(SIM_SEED) $(SIM_SCHEDULES) $(SIM_JOBS)

# src/core as the unit tests and COVERAGE_SCHEDULES schedules take it.  Its own objects have no exceptions and no
# optimisation, so that every branch is one of the source.
COVERAGE_SCHEDULES ?= 5000
COVERED      = $(patsubst %.cpp,$(BUILD)/cov/%.o,$(sort $(wildcard src/core/*/*.cpp)))
COVERED_WITH = $(patsubst %.cpp,$(BUILD)/fast/%.o,$(sort $(wildcard test/unit/*.cpp src/region/*.cpp src/proto/*.cpp)))
$(BUILD)/cov/%.o: %.cpp $(BUILD)/flags
	$(call compile,$(TEST_FLAGS) -O0 -fno-exceptions --coverage)
$(BUILD)/cov/run: $(COVERED) $(COVERED_WITH)
	@mkdir -p $(@D); echo '  LINK  $@'; $(CXX) --coverage -o $@ $^ -lgtest_main -lgtest -lcrypto -lpthread
coverage: $(BUILD)/cov/run
	@find $(BUILD)/cov -name '*.gcda' -delete
	@SIM_SCHEDULES=$(COVERAGE_SCHEDULES) $< --gtest_brief=1 --gtest_filter='$(UNIT_FILTER)'
	@dev/coverage.sh $(BUILD)/cov $(CXX)

# A fuzz target is test/fuzz/<name>.cpp; its corpus is test/fuzz/corpus/<name>/.  What libFuzzer finds new stays in
# $(BUILD).  fuzz-replay needs no clang: it runs the corpus, and mutations of it from a fixed seed, once.
FUZZ_SECONDS ?= 60
FUZZ        ?= $(sort $(notdir $(basename $(wildcard test/fuzz/*.cpp))))
FUZZ_CXX    ?= $(firstword $(foreach c,clang++ clang++-19 clang++-16 clang++-14,$(shell command -v $(c) 2>/dev/null)))
FUZZ_FLAGS   = $(TEST_FLAGS) $(SANITIZE) -Wno-unknown-warning-option

$(BUILD)/fuzzobj/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D); echo '  CXX   $<'; $(FUZZ_CXX) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(DEPS) -c -o $@ $<
$(BUILD)/fuzz/%: $(BUILD)/fuzzobj/test/fuzz/%.o $(call pure_objects,fuzzobj)
	@mkdir -p $(@D); echo '  LINK  $@'; $(FUZZ_CXX) $(SANITIZE) -fsanitize=fuzzer -o $@ $^ -lcrypto
$(BUILD)/replay/%: $(BUILD)/san/test/fuzz/%.o $(BUILD)/san/dev/fuzz_replay.o $(call pure_objects,san)
	@mkdir -p $(@D); echo '  LINK  $@'; $(CXX) $(SANITIZE) -o $@ $^ -lcrypto
fuzz:
ifeq ($(FUZZ_CXX),)
	@echo 'fuzz: libFuzzer comes with clang, and there is no clang++: apt-get install clang (or give FUZZ_CXX=)' >&2; exit 1
else
	@$(MAKE) --no-print-directory $(addprefix $(BUILD)/fuzz/,$(FUZZ))
	@for t in $(FUZZ); do \
	    mkdir -p $(BUILD)/fuzz/new/$$t $(BUILD)/fuzz/crash; seeds=; \
	    [ ! -d test/fuzz/corpus/$$t ] || seeds=test/fuzz/corpus/$$t; \
	    echo "fuzz: $$t, $(FUZZ_SECONDS) s"; \
	    $(BUILD)/fuzz/$$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 -verbosity=0 \
	        -artifact_prefix=$(BUILD)/fuzz/crash/$$t- $(BUILD)/fuzz/new/$$t $$seeds || exit 1; \
	done
endif
replay-build: $(addprefix $(BUILD)/replay/,$(FUZZ))
fuzz-replay: replay-build
	@for t in $(FUZZ); do $(BUILD)/replay/$$t test/fuzz/corpus/$$t || exit 1; done

# Test programs that speak the protocol themselves: a source file with a main() is a program; the others are linked into
# each, as is src/proto.
TOOL_MAINS   = $(sort $(shell grep -lE '^int main' test/tools/*.cpp 2>/dev/null))
TOOLS        = $(patsubst test/tools/%.cpp,$(BUILD)/tools/%,$(TOOL_MAINS))
PQ_CFLAGS    = $(shell $(PKG_CONFIG) --cflags libpq 2>/dev/null || echo -isystem $$($(PG_CONFIG) --includedir))
PQ_LIBS      = $(shell $(PKG_CONFIG) --libs libpq 2>/dev/null || echo -L$$($(PG_CONFIG) --libdir) -lpq)
TOOL_OBJS    = $(patsubst %.cpp,$(BUILD)/toolobj/%.o,$(filter-out $(TOOL_MAINS),$(sort $(wildcard test/tools/*.cpp src/proto/*.cpp))))
$(BUILD)/toolobj/%.o: %.cpp $(BUILD)/flags
	$(call compile,$(COMMON) $(PQ_CFLAGS) -Itest)
$(BUILD)/tools/%: $(BUILD)/toolobj/test/tools/%.o $(TOOL_OBJS)
	@mkdir -p $(@D); echo '  LINK  $@'; $(CXX) -Wl,--as-needed -o $@ $^ $(PQ_LIBS) -lssl -lcrypto -lpthread
# ... and libraries to be loaded into servers: test/tools/preload by LD_PRELOAD, test/tools/extension by the server.
TOOL_LIBS    = $(patsubst test/tools/%.cpp,$(BUILD)/tools/%.so,$(sort $(wildcard test/tools/preload/*.cpp test/tools/extension/*.cpp)))
$(BUILD)/tools/preload/%.so: test/tools/preload/%.cpp $(BUILD)/flags
	@mkdir -p $(@D); echo '  CXX   $<'; $(CXX) $(COMMON) -O1 -fPIC -shared -o $@ $< -ldl -lpthread
$(BUILD)/tools/extension/%.so: test/tools/extension/%.cpp $(BUILD)/flags
	@mkdir -p $(@D); echo '  CXX   $<'; $(CXX) $(POOL_FLAGS) -shared -o $@ $<
tools: $(TOOLS) $(TOOL_LIBS)

# PostgreSQL's own test programs, from its source (dev/pgsource.sh fetches it).  The traces to compare with are those of
# a libpq of the same version.
PIPELINE     = $(BUILD)/pgsource-$(PG_MAJOR)/src/test/modules/libpq_pipeline
$(BUILD)/pgtests/libpq_pipeline: $(PIPELINE)/libpq_pipeline.c
	@mkdir -p $(@D); echo '  CC    $<'; rm -rf $@.traces
	@$(CC) -O1 -g $(PQ_CFLAGS) $(SERVER_INC) -o $@ $< -L$$($(PG_CONFIG) --pkglibdir) $(PQ_LIBS) -lpgcommon -lpgport
	@case $$($(PKG_CONFIG) --modversion libpq) in $(PG_MAJOR).*) cp -R $(PIPELINE)/traces $@.traces ;; esac
pgtests: $(BUILD)/pgtests/libpq_pipeline
# ... and the libraries that its regression tests load, for dev/core.sh
$(BUILD)/pgtests/%.so:
	@mkdir -p $(@D); echo '  CC    $<'
	@$(CC) -O1 -g -fPIC -fwrapv -fno-strict-aliasing -DREFINT_VERBOSE -shared $(SERVER_INC) -o $@ $<
$(BUILD)/pgtests/regress.so: $(BUILD)/pgsource-$(PG_MAJOR)/src/test/regress/regress.c
$(BUILD)/pgtests/refint.so:  $(BUILD)/pgsource-$(PG_MAJOR)/contrib/spi/refint.c
$(BUILD)/pgtests/autoinc.so: $(BUILD)/pgsource-$(PG_MAJOR)/contrib/spi/autoinc.c
pgcore: $(patsubst %,$(BUILD)/pgtests/%.so,regress refint autoinc)
# What tests expect is what the psql of the same version writes; the source may be older than the server.
PGBUILD      = $(BUILD)/pgsource-$(PG_MAJOR).build
$(BUILD)/pgtests/psql: $(BUILD)/pgsource-$(PG_MAJOR)/configure
	@mkdir -p $(@D) $(PGBUILD); echo '  MAKE  $@'
	@cd $(PGBUILD) && $(abspath $<) --quiet --without-readline --without-zlib CFLAGS=-O1
	@$(MAKE) -s -C $(PGBUILD)/src/backend generated-headers
	@for d in port common interfaces/libpq bin/psql; do $(MAKE) -s -C $(PGBUILD)/src/$$d || exit 1; done
	@cp $(PGBUILD)/src/bin/psql/psql $@; rm -rf $(PGBUILD)

# ---------------------------------------------------------------- source checks
layercheck:
	@dev/layercheck.sh
format-check:
	@dev/format.sh check
format:
	@dev/format.sh fix
tidy:
	@dev/format.sh tidy
shellcheck:
	@shellcheck -x dev/*.sh .ci/run

# ---------------------------------------------------------------- servers: each script says what it starts and leaves
setup:
	@dev/setup.sh
# pgxs.mk has a `check` of its own, which only says that there is none
ifeq ($(and $(PGXS),$(if $(filter check,$(MAKECMDGOALS)),,yes)),)
check:
	@dev/check.sh 2>&1
endif
# one suite alone: REGRESS="a b"  PGTAP_TESTS=...  PROVE_TESTS=...  choose files
installcheck:
	@dev/check.sh build regress
pgtap:
	@dev/check.sh build pgtap
tap:
	@dev/check.sh build tap
# PostgreSQL's own suites; MODE and TESTS: see dev/core.sh
check-core check-isolation: check-%:
	@dev/core.sh $* 2>&1
demo:
	@dev/demo.sh start
demo-stop:
	@dev/demo.sh stop
bench:
	@dev/bench.sh $(BENCH)
compile-17 compile-18: compile-%:
	@dev/chroot.sh $*

dist:
	@mkdir -p $(BUILD)
	git archive --format zip --prefix=$(EXTENSION)-$(EXTVERSION)/ -o $(BUILD)/$(EXTENSION)-$(EXTVERSION).zip HEAD

help:
	@echo 'make               build both libraries into $(BUILD)/'
	@echo 'make install       install into the PostgreSQL of PG_CONFIG (now: $(PG_CONFIG), $(or $(PG_VERSION),not found))'
	@echo 'make uninstall     take it out again'
	@echo 'make clean         remove $(BUILD)/ (stops the demo first)'
	@echo
	@echo 'make demo          build, start a primary and a replica with pgpool, show it at work; stays up'
	@echo 'make demo-stop     stop the demo and remove its files'
	@echo 'make check         all tests; installs missing Debian packages (dev/setup.sh)'
	@echo 'make bench         measure against PostgreSQL and PgBouncer; BENCH="--help" lists the options'
	@echo
	@echo 'make unit          unit tests under ASan and UBSan; UNIT_FILTER=Frame*  VERBOSE=1'
	@echo 'make simulate      random schedules at -O2; SIM_SCHEDULES=1000000  SIM_SEED=1  SIM_JOBS=4'
	@echo 'make coverage      lines and branches of src/core that unit tests and simulator take; COVERAGE_SCHEDULES=5000'
	@echo 'make installcheck  pg_regress;  REGRESS="views errors"'
	@echo 'make pgtap         pgTAP tests; PGTAP_TESTS=test/pgtap/010_objects.sql'
	@echo 'make tap           TAP tests;   PROVE_TESTS=test/tap/020_cancel.pl'
	@echo 'make fuzz          each libFuzzer target for FUZZ_SECONDS=60; FUZZ="frame scan"'
	@echo 'make fuzz-replay   the fuzz corpora once, without clang'
	@echo 'make tools         the test programs of test/tools'
	@echo 'make pgtests       test programs of PostgreSQL itself, from its source (dev/pgsource.sh fetches it)'
	@echo 'make check-core, check-isolation   suites of PostgreSQL itself; MODE=direct|session|pool|pool-busy  TESTS="test_setup guc"'
	@echo 'make docs-tables   the tables of docs/reference.md that repeat the lists of src/region'
	@echo 'make layercheck    includes never point up; proto and core compile without PostgreSQL, libuv, OpenSSL'
	@echo 'make format-check  clang-format (make format applies it; make tidy runs clang-tidy)'
	@echo 'make compile-17    build against PostgreSQL 17 (or compile-18) in a Debian chroot; needs root and debootstrap'
	@echo 'make dist          release archive'
	@echo
	@echo 'Variables: PG_CONFIG=path  BUILD=directory  WERROR=1  OPTFLAGS="-O2 -g"  CXX=clang++'

.PHONY: all libs docs-tables docs-check install-libraries uninstall-libraries clean-build distclean unit unit-build simulate coverage fuzz fuzz-replay replay-build \
        tools pgtests pgcore layercheck format-check format tidy shellcheck setup check check-core check-isolation installcheck pgtap tap demo demo-stop bench \
        compile-17 compile-18 dist help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

# Only of objects of ours, by folder: other people's trees below $(BUILD) have .d files that are something else.
OBJECT_DIRS = $(wildcard $(addprefix $(BUILD)/,obj san fast cov fuzzobj toolobj sql))
-include $(if $(OBJECT_DIRS),$(shell find $(OBJECT_DIRS) -name '*.d'))
