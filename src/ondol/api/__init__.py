"""HTTP in the field's protocols, one package each. Must not decide anything: it translates and passes on."""
