"""Who is asking: `callers` judges what is shown, `keys` knows API keys, `bearer` the tokens of an issuer and `jwks` the
issuer's keys, `stream_tokens` what an EventSource shows, `signatures` who signed a webhook; `owners` says what can be
an owner, `ports` what is needed.
"""
