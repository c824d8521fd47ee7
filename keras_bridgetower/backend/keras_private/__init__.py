"""All uses of private names of Keras, one topic in each module.

`docs/design/keras.md` lists the public hooks that would replace them.
"""
