from .paper import RECIPES as RECIPES
from .paper import Recipe as Recipe
from .paper import get as get
