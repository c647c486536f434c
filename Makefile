# For fingers that type make; ./dev is the truth.
.PHONY: study test lint
study test lint:
	@./dev $@
