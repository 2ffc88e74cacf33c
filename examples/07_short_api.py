# The same in five lines, on the checkpoint that comes with the package.
import qwen2_audio as qa

m = qa.load()
answer = m.chat([qa.user("What is that sound?", audio=qa.nano_path() / "clips" / "dog.wav")])
print(answer.text, answer.heard)
