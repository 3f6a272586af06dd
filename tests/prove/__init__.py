"""Proofs of rules: a rewrite holds as an identity of rational functions, checked at random points of finite fields."""
