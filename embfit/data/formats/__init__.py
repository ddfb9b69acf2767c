"""Files of text as blocks, one reader per format: Markdown, reStructuredText, HTML, plain text, PDF, DOCX."""
