# SPDX-License-Identifier: GPL-2.0
#
# Builds, boots, tests and installs the latched NMI handler. Each target is a
# script under tools/; this file only names them. "make help" lists the targets,
# and the variables, whose defaults are in tools/latched-nmi/common.

variables := KVER LINUX MACHINE O ACCEL SMP V PART TEST CASE AT ENTRY REPLAY \
	MUTANT ROW RUN MINUTES CPUS SEED PAIRS DEEP KDIR
export $(variables)

# A misspelt variable would do nothing, and say nothing.
given := $(foreach v,$(MAKEOVERRIDES),$(if $(findstring =,$v),$(firstword $(subst =, ,$v))))
unknown := $(filter-out $(variables) SHELL,$(given))
ifneq ($(unknown),)
$(error there is no variable $(unknown); there are: $(variables))
endif

# A directory of that name would make it a target that has nothing to do.
targets := help guest run shell check lint inject mutate bench explore machines soak \
	verify series apply unapply clean
unknown := $(filter-out $(targets),$(MAKECMDGOALS))
ifneq ($(unknown),)
$(error there is no target $(unknown); there are: $(targets))
endif
.PHONY: $(targets)

T := $(dir $(realpath $(lastword $(MAKEFILE_LIST))))tools/latched-nmi

help:
	@$(T)/help

ifeq ($(KVER),all)
guest check lint inject mutate bench explore series:
	@$(T)/each $@
else
guest:
	@$(T)/vm/guest

check:
	@$(T)/check/check

lint:
	@$(T)/deps lint
	@$(T)/vm/kernel
	@$(T)/check/lint

inject:
	@$(T)/deps build
	@$(T)/inject/run -n
	@$(T)/vm/guest
	@$(T)/inject/run

mutate:
	@$(T)/deps build
	@$(T)/inject/mutate -n
	@$(T)/vm/guest
	@$(T)/inject/mutate

bench:
	@$(T)/deps build
	@$(T)/bench/bench $$ROW

explore:
	@$(T)/../verification/latched-nmi/explore/run -n
	@$(T)/deps build
	@$(T)/vm/kernel
	@$(T)/../verification/latched-nmi/explore/run

series:
	@$(T)/deps series
	@$(T)/vm/kernel source
	@$(T)/tree/series
endif

run:
	@$(T)/vm/guest
	@$(T)/demo

shell:
	@$(T)/vm/guest
	@$(T)/vm/boot -a apic_extnmi=all

machines:
	@$(T)/vm/install

soak:
	@$(T)/vm/guest
	@$(T)/check/soak

verify:
	@$(T)/deps verify
	@$(T)/../verification/latched-nmi/verify.sh $$RUN

apply:
	@$(T)/tree/apply "$$KDIR"

unapply:
	@$(T)/tree/apply -R "$$KDIR"

clean:
	@$(T)/clean '$(origin O)'
