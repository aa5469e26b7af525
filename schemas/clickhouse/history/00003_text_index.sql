-- min-version: 26.2
-- Words in message bodies: with it hasAnyTokens, hasAllTokens and hasPhrase skip what cannot match. Bodies that were there before are indexed as their parts merge.
ALTER TABLE messages ADD INDEX IF NOT EXISTS body_text body TYPE text(tokenizer = 'splitByNonAlpha', preprocessor = lower(body));
